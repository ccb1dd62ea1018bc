"""The pictures of the page: raw pairs, styles with their references, preference pairs, and of how many."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders.finished_corpus import STYLES
from builders.html_page import Page, Sample

from stylear.curate.corpus.columns import DictionaryColumn
from stylear.curate.corpus.parquet import read_rows, read_table, write_table
from stylear.curate.corpus.shards import iter_pairs, read_shard, shard_paths, write_shard
from stylear.curate.report import write_report
from stylear.curate.report.facts import Facts
from stylear.curate.report.gallery import interleave_by_reason
from stylear.pair import Pair


def section(corpus: Path, title: str, level: str = "h2") -> Page:
    """What stands below a heading, up to the next of its level."""
    text = write_report(corpus).read_text("utf-8")
    after = text.split(f">{title}</a>")[-1]  # the first is in the list of sections
    return Page(after.partition(f"<{level} ")[0].partition("<h2 ")[0])


def by_name(page: Page, name: str) -> list[Sample]:
    return [sample for sample in page.samples if sample.name == name]


def edit_verdicts(corpus: Path, **columns: Any) -> None:
    """Give columns of every stylized pair's verdict another value."""
    table = read_table(corpus / "verdicts.parquet")
    stylized = {pair.key for pair in iter_pairs(corpus / "stylized")}
    rows = table.to_pylist()
    for row in rows:
        if row["key"] in stylized:
            row.update(columns)
    write_table(corpus / "verdicts.parquet", pa.Table.from_pylist(rows, schema=table.schema))


@pytest.fixture
def corpus(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "corpus"))


# --- samples ----------------------------------------------------------------------------------


def test_raw_pairs_are_shown_with_their_source_and_how_many_there_are(corpus: Path) -> None:
    page = section(corpus, "Raw pairs")
    pairs = sorted(iter_pairs(corpus / "raw"), key=lambda pair: pair.key)
    kept = [pair for pair in pairs if pair.kept]
    assert page.counts == ["12 of 16 kept pairs", "1 of 1 dropped pairs"]
    assert [(s.verdict, s.caption, s.details) for s in by_name(page, "kept")] == [
        ("Kept", pair.caption, [pair.origin.source]) for pair in kept[:12]
    ]
    (lost,) = by_name(page, "dropped")
    assert (lost.verdict, lost.src) == ("Dropped: not-an-image", None)


def test_each_style_has_its_references_and_its_kept_and_dropped_pairs(corpus: Path) -> None:
    verdicts = {row["key"]: row for row in read_table(corpus / "verdicts.parquet").to_pylist()}
    stylized: dict[str, list[Pair]] = {}
    for pair in sorted(iter_pairs(corpus / "stylized"), key=lambda pair: pair.key):
        stylized.setdefault(str(pair.origin.reference).split("--")[0], []).append(pair)
    assert sorted(stylized) == ["cold", "plain", "warm"]
    for style, pairs in stylized.items():
        page = section(corpus, style, "h3")
        kept = [pair for pair in pairs if verdicts[pair.key]["kept"]]
        lost = [pair for pair in pairs if not verdicts[pair.key]["kept"]]
        references = [name for name in sorted(STYLES) if name.split("--")[0] == style]
        assert page.counts == [
            f"{len(references)} of {len(references)} style references",
            f"{len(kept)} of {len(kept)} kept pairs",
            f"{min(6, len(lost))} of {len(lost)} dropped pairs",
        ]
        assert [(s.verdict, s.caption) for s in by_name(page, "reference")] == [
            ("Style reference", name) for name in references
        ]
        for name, shown in (("kept", kept), ("dropped", lost[:6])):
            assert [(s.caption, s.details) for s in by_name(page, name)] == [
                (
                    pair.caption,
                    [
                        f"texture {verdicts[pair.key]['score.texture']:.2f}",
                        f"reference {pair.origin.reference}",
                    ],
                )
                for pair in shown
            ]
        assert {s.verdict for s in by_name(page, "dropped")} <= {"Dropped: not-best"}
        assert all(
            s.alt.startswith(f"Picture in the style of {style}") for s in by_name(page, "kept")
        )


def test_each_reason_is_shown_once_before_any_is_shown_again() -> None:
    reasons = DictionaryColumn(pa.array(["a", "a", "a", None, "b", "a", "b"]))
    facts = Facts.__new__(Facts)
    pairs = type("Pairs", (), {"reason": reasons})()
    object.__setattr__(facts, "pairs", pairs)
    order = interleave_by_reason(facts, pa.array(range(7)).to_numpy())
    assert order.tolist() == [0, 3, 4, 1, 6, 2, 5]


def test_a_pair_without_an_image_is_a_gap_with_its_reason(corpus: Path) -> None:
    lowest = min(pair.key for pair in iter_pairs(corpus / "stylized"))  # so it is shown first
    for path in shard_paths(corpus / "stylized"):
        pairs = list(read_shard(path))
        if lowest in {pair.key for pair in pairs}:
            without = [replace(p, image=b"") if p.key == lowest else p for p in pairs]
            write_shard(corpus / "stylized", int(path.stem), without)
            caption = next(pair.caption for pair in pairs if pair.key == lowest)
    edit_verdicts(corpus, kept=False, stage="synthesize", reason="nan-image")
    gaps = [s for s in section(corpus, "Styles").samples if s.src is None]
    assert [(s.name, s.verdict, s.caption) for s in gaps] == [
        ("dropped", "Dropped: nan-image", caption)
    ]


# --- preference pairs -------------------------------------------------------------------------


def test_a_preference_pair_shows_reference_chosen_and_rejected_side_by_side(corpus: Path) -> None:
    page = section(corpus, "Preference pairs")
    shards = sorted((corpus / "preferences").glob("*.parquet"))
    rows = [row for path in shards for row in read_table(path).to_pylist()]
    assert page.counts == [f"{min(8, len(rows))} of {len(rows)} preference pairs"]
    expected = []
    for row in rows[:8]:
        expected += [
            ("reference", "Style reference", row["reference"], []),
            ("kept", "Chosen", "", [f"score {row['chosen_score']:.3f}"]),
            ("dropped", "Rejected", "", [f"score {row['rejected_score']:.3f}"]),
        ]
    assert [(s.name, s.verdict, s.caption, s.details) for s in page.samples] == expected
    widths = Counter((s.name, s.width) for s in page.samples)
    assert widths == {("reference", 160): 8, ("kept", 144): 8, ("dropped", 144): 8}
    prompts = [text for text in page.texts if text in {row["caption"] for row in rows}]
    assert prompts == [row["caption"] for row in rows[:8]]
    assert "The score is texture." in " ".join(page.texts)


# --- references that are missing -----------------------------------------------------------------


@pytest.fixture
def movable(finished: Path, corpus: Path) -> Path:
    """A finished corpus whose recipe names style images that the test may take away."""
    for name in ("styles", "photos"):
        shutil.copytree(finished.parent / name, corpus.parent / name)
    note = {"relative": "..", "absolute": str(corpus.parent)}  # and not where it was built
    (corpus / ".recipe-folder.json").write_text(json.dumps(note), "utf-8")
    return corpus  # its paths start at the folder that holds it, which is another one now


def lost_names(page: Page) -> list[str]:
    start = "References that are missing or have changed since: "
    lists = [text.removeprefix(start) for text in page.warnings if text.startswith(start)]
    return sorted(name for text in lists for name in text.split(", "))


def used(corpus: Path) -> set[str]:
    tables = sorted((corpus / "stylized").glob("*.parquet"))
    return {str(row["reference"]) for path in tables for row in read_rows(path)}


def test_references_that_went_missing_are_named_and_the_page_is_drawn(movable: Path) -> None:
    before = section(movable, "Styles")
    assert lost_names(before) == []
    assert [s.caption for s in by_name(before, "reference")] == sorted(STYLES)
    shutil.rmtree(movable.parent / "styles")
    after = section(movable, "Styles")
    assert by_name(after, "reference") == []
    assert lost_names(after) == sorted(used(movable))
    assert len(after.samples) == len(before.samples) - len(STYLES)
    preferences = section(movable, "Preference pairs")
    assert {s.src for s in by_name(preferences, "reference")} == {None}


def test_a_reference_that_was_changed_is_not_shown_as_the_one_that_was_used(movable: Path) -> None:
    name = min(used(movable))
    other = next(style for style in STYLES if style != name)
    styles = movable.parent / "styles"
    shutil.copy(styles / f"{other}.png", styles / f"{name}.png")
    page = section(movable, "Styles")
    assert lost_names(page) == [name]
    assert [s.caption for s in by_name(page, "reference")] == sorted(set(STYLES) - {name})
