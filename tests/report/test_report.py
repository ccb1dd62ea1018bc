"""The report page: whole in itself, safe with hostile text, and true to the ledger."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders.finished_corpus import CAPTIONS, STYLES, finish, finished_settings
from builders.pictures_folder import make_recipe
from PIL import Image

from stylear.curate import run as runner
from stylear.curate.corpus.layout import STAGES
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.parquet import read_rows, read_table, write_table
from stylear.curate.corpus.shards import iter_pairs, read_shard, shard_paths, write_shard
from stylear.curate.report import write_report
from stylear.curate.report.charts import histogram_svg, line_chart_svg
from stylear.errors import CorpusError

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title><svg onload='x'>",
    "!not a reason",
]


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and text by place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.cells: list[list[str]] = []  # of table rows
        self.pictures: list[tuple[str, str, list[str]]] = []  # class, image, lines below
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th"):
            self.cells[-1].append("")
        elif tag == "div" and str(found.get("class")).startswith("pic "):
            self.pictures.append((str(found["class"])[4:], "", []))
        elif tag == "img" and self.pictures:
            kind, _, lines = self.pictures[-1]
            self.pictures[-1] = (kind, str(found["src"]), lines)
        if tag not in ("meta", "img", "br", "rect", "polyline"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._open and self._open[-1] in ("td", "th"):
            self.cells[-1][-1] += data
        if self.pictures and self._open[-1:] in (["div"], ["em"]):
            self.pictures[-1][2].append(("!" if self._open[-1] == "em" else "") + data)


def page(corpus: Path) -> Page:
    return Page(write_report(corpus).read_text("utf-8"))


def copied(home: Path, to: Path) -> Path:
    """A copy of a finished corpus and of its sources' place in the recipe."""
    return Path(shutil.copytree(home, to / "corpus"))


def edit_verdicts(corpus: Path, **columns: Any) -> None:
    """Give columns of every stylized pair's verdict another value."""
    table = read_table(corpus / "verdicts.parquet")
    stylized = {pair.key for pair in iter_pairs(corpus / "stylized")}
    rows = table.to_pylist()
    for row in rows:
        if row["key"] in stylized:
            row.update(columns)
    write_table(corpus / "verdicts.parquet", pa.Table.from_pylist(rows, schema=table.schema))


# --- whole in itself --------------------------------------------------------------------------


def test_the_page_needs_nothing_but_itself(finished: Path, tmp_path: Path) -> None:
    path = write_report(copied(finished, tmp_path))
    assert path == tmp_path / "corpus" / "report" / "index.html"
    assert [other.name for other in path.parent.iterdir()] == ["index.html"]
    text = path.read_text("utf-8")
    found = Page(text)
    links = [v for _, a in found.tags for name, v in a.items() if name in ("src", "href", "srcset")]
    assert len(links) > 24
    assert all(str(link).startswith("data:image/png;base64,") for link in links)
    assert re.findall(r"https?://|//[a-z]|url\(|@import", text.split("base64,")[0]) == []
    assert re.findall(r"https?://", text) == []
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "a"}


def test_the_policy_forbids_everything_but_inline_styles_and_data_images(
    finished: Path, tmp_path: Path
) -> None:
    found = page(copied(finished, tmp_path))
    policies = [a["content"] for tag, a in found.tags if a.get("http-equiv") is not None]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    before = [tag for tag, _ in found.tags[: [tag for tag, _ in found.tags].index("style")]]
    assert before == ["html", "head", "meta", "meta", "meta", "title"]


def test_the_same_corpus_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    corpus = copied(finished, tmp_path)
    first = write_report(corpus).read_bytes()
    assert write_report(corpus).read_bytes() == first
    moved = Path(shutil.move(corpus, tmp_path / "elsewhere"))
    assert write_report(moved).read_bytes() == first


# --- hostile text -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished corpus with captions that would like to be markup, and a reason with quotes."""
    root = tmp_path_factory.mktemp("hostile")
    corpus = finish(root, HOSTILE * 3, filter={"best_of": None, "duplicates": {"exact": False}})
    rows = read_table(corpus / "verdicts.parquet")
    values = rows.to_pylist()
    last = [row for row in values if row["group"] is not None][-1]
    last.update(kept=False, stage="filter", reason="""it's "<b>bold</b>" & more""")
    write_table(corpus / "verdicts.parquet", pa.Table.from_pylist(values, schema=rows.schema))
    return corpus


def test_hostile_captions_and_reasons_are_text(hostile: Path) -> None:
    text = write_report(hostile).read_text("utf-8")
    found = Page(text)
    lines = {line for _, _, lines in found.pictures for line in lines}
    assert set(HOSTILE) <= lines
    assert """!it's "<b>bold</b>" & more""" in lines
    assert "<script" not in text
    assert html.escape(HOSTILE[0]) in text
    attributes = {name for _, attrs in found.tags for name in attrs}
    assert not {name for name in attributes if name.startswith("on")}
    assert [tag for tag, _ in found.tags].count("b") == 7  # the seven totals


def test_a_caption_cannot_pass_for_a_reason(hostile: Path) -> None:
    text = write_report(hostile).read_text("utf-8")
    assert "!not a reason" in text
    assert "<em>not a reason" not in text


def test_a_long_caption_is_cut_before_it_is_escaped(tmp_path: Path) -> None:
    corpus = finish(tmp_path, ["<" * 500], synthesize={"backend": "statistics", "candidates": 1},
                    mix={"val_fraction": 0})  # fmt: skip
    found = page(corpus)
    assert {lines[0] for kind, _, lines in found.pictures if kind == ""} == {"<" * 120}


# --- true to the ledger -----------------------------------------------------------------------


def test_the_funnel_has_the_numbers_of_the_ledger(finished: Path, tmp_path: Path) -> None:
    found = page(copied(finished, tmp_path))
    head = found.cells.index(["stage", "in", "kept", "", "left out, and why"])
    rows = {row[0]: row[1:] for row in found.cells[head + 1 : head + 5]}
    ledger = Ledger(finished)
    expected = {}
    for stage in ("fetch", "synthesize", "filter", "mix"):
        entry = ledger.entry(stage, "all")
        assert entry is not None
        why = ", ".join(f"{reason} {n}" for reason, n in sorted(entry.dropped.items()))
        expected[stage] = [str(entry.rows_in), str(entry.kept), "", why or "-"]
    assert rows == expected
    assert rows["fetch"] == ["17", "16", "", "not-an-image 1"]
    assert rows["synthesize"][:2] == ["24", "24"]


def test_the_totals_are_those_of_the_manifest(finished: Path, tmp_path: Path) -> None:
    text = write_report(copied(finished, tmp_path)).read_text("utf-8")
    totals = {what: n for n, what in re.findall(r"<div><b>(.*?)</b><span>(.*?)</span></div>", text)}
    manifest = json.loads((finished / "manifest.json").read_text())
    counts = manifest["counts"]
    contents = sum(split["contents"] for split in manifest["splits"].values())
    assert totals == {
        "pairs seen": "41",
        "in train and val": str(counts["pairs"]),
        "of them stylized": str(counts["stylized"]),
        "raw : stylized": "1.00 : 1",
        "distinct contents": str(contents),
        "styles": "3",
        "preference pairs": str(counts["preferences"]),
    }


def test_the_files_are_those_of_the_manifest(finished: Path, tmp_path: Path) -> None:
    found = page(copied(finished, tmp_path))
    files = json.loads((finished / "manifest.json").read_text())["files"]
    head = found.cells.index(["file", "bytes", "sha256"])
    # the hash stands in <code> inside its cell
    shown = {row[0]: row[1] for row in found.cells[head + 1 :]}
    assert shown == {
        name: f"{info['bytes']:,}"
        for name, info in files.items()
        if name.startswith(("train/", "val/", "preferences/"))
    }
    assert files["train/00000.tar"]["sha256"][:16] in found.texts


def test_the_recipe_stands_on_the_page(finished: Path, tmp_path: Path) -> None:
    assert (finished / "recipe.yaml").read_text() in page(copied(finished, tmp_path)).texts


# --- pictures ---------------------------------------------------------------------------------


def test_each_style_has_its_references_and_its_pictures(finished: Path, tmp_path: Path) -> None:
    text = write_report(copied(finished, tmp_path)).read_text("utf-8")
    parts = re.split(r"<h3>(\w+) <span class='mute'>(\d+) kept, (\d+) dropped</span></h3>", text)
    styles = {parts[n]: (int(parts[n + 1]), int(parts[n + 2]), parts[n + 3]) for n in (1, 5, 9)}
    assert sorted(styles) == ["cold", "plain", "warm"]
    assert sum(kept for kept, _, _ in styles.values()) == 12
    assert sum(lost for _, lost, _ in styles.values()) == 12
    made = {p.image: p for p in iter_pairs(finished / "stylized")}
    verdicts = {r["key"]: r for r in read_table(finished / "verdicts.parquet").to_pylist()}
    for style, (kept, lost, rest) in styles.items():
        pictures = Page(rest.split("<h2>")[0]).pictures
        shown = [(kind, base64.b64decode(src.partition(",")[2]), ls) for kind, src, ls in pictures]
        references = [(lines[0], image) for kind, image, lines in shown if kind == "ref"]
        assert references == [
            (name, (finished.parent / "styles" / f"{name}.png").read_bytes())
            for name in sorted(STYLES)
            if name.split("--")[0] == style
        ]
        assert [kind for kind, _, _ in shown].count("") == kept <= 12
        assert [kind for kind, _, _ in shown].count("no") == min(lost, 6)
        for kind, image, lines in shown:
            if kind == "ref":
                continue
            pair = made[image]
            assert str(pair.origin.reference).split("--")[0] == style
            assert lines[:2] == [
                pair.caption, f"texture {verdicts[pair.key]['score.texture']:.2f}",
            ]  # fmt: skip
            assert lines[2:] == ([] if kind == "" else ["!not-best"])


def test_preference_pairs_show_chosen_before_rejected(finished: Path, tmp_path: Path) -> None:
    text = write_report(copied(finished, tmp_path)).read_text("utf-8")
    found = Page(text.partition("<h2>Preference pairs</h2>")[2].partition("<h2>")[0]).pictures
    rows = read_table(finished / "preferences" / "00000.parquet").to_pylist()
    expected = []
    for row in rows[:8]:
        for side in ("chosen", "rejected"):
            expected.append([row["caption"], f"{side} {row[f'{side}_score']:.3f}"])
    assert [lines for _, _, lines in found] == expected
    assert [kind for kind, _, _ in found] == ["", "no"] * (len(expected) // 2)


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "PNG"])
def test_a_picture_says_what_it_is(format_: str) -> None:
    from stylear.curate.report.page import data_uri

    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, format_)
    assert data_uri(out.getvalue()).startswith(f"data:image/{format_.lower()};base64,")


def test_a_pair_without_an_image_is_a_gap_with_its_reason(finished: Path, tmp_path: Path) -> None:
    corpus = copied(finished, tmp_path)
    lowest = min(pair.key for pair in iter_pairs(corpus / "stylized"))  # so it is shown first
    for path in shard_paths(corpus / "stylized"):
        pairs = list(read_shard(path))
        if lowest in {pair.key for pair in pairs}:
            without = [replace(p, image=b"") if p.key == lowest else p for p in pairs]
            write_shard(corpus / "stylized", int(path.stem), without)
            caption = next(pair.caption for pair in pairs if pair.key == lowest)
    edit_verdicts(corpus, kept=False, stage="synthesize", reason="nan-image")
    found = page(corpus).pictures
    gaps = [(kind, lines[0], lines[-1]) for kind, src, lines in found if not src]
    assert gaps == [("no", caption, "!nan-image")]


# --- what may be missing ----------------------------------------------------------------------


def test_a_corpus_without_stylized_pairs_has_a_page_without_those_sections(tmp_path: Path) -> None:
    from builders.finished_corpus import make_sources

    make_sources(tmp_path)
    values = finished_settings(references=[], score=[], filter={})
    del values["synthesize"]
    runner.run_stages(STAGES, make_recipe(tmp_path, values), tmp_path / "corpus", workers=1)
    text = write_report(tmp_path / "corpus").read_text("utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Funnel", "Diversity", "Files", "Recipe"]
    totals = {what: n for n, what in re.findall(r"<div><b>(.*?)</b><span>(.*?)</span></div>", text)}
    assert totals["raw : stylized"] == "-"
    assert (totals["of them stylized"], totals["styles"], totals["in train and val"]) == (
        "0",
        "0",
        "16",
    )
    assert ["synthesize", "0", "0", "", "-"] in Page(text).cells


@pytest.fixture
def movable(finished: Path, tmp_path: Path) -> Path:
    """A finished corpus whose recipe names style images that the test may take away."""
    corpus = copied(finished, tmp_path)
    for name in ("styles", "photos"):
        shutil.copytree(finished.parent / name, tmp_path / name)
    note = {"relative": "..", "absolute": str(tmp_path)}  # and not where it was built
    (corpus / ".recipe-folder.json").write_text(json.dumps(note), "utf-8")
    return corpus  # its paths start at the folder that holds it, which is another one now


def told_gone(text: str) -> list[str]:
    return re.findall(r"References that are gone or were changed since: (.*?)</p>", text)


def reference_names(text: str) -> list[str]:
    return [lines[0] for kind, _, lines in Page(text).pictures if kind == "ref"]


def used(corpus: Path) -> set[str]:
    tables = sorted((corpus / "stylized").glob("*.parquet"))
    return {str(row["reference"]) for path in tables for row in read_rows(path)}


def test_references_that_went_missing_are_told_and_the_page_is_drawn(movable: Path) -> None:
    whole = write_report(movable).read_text("utf-8")
    assert told_gone(whole) == []
    assert reference_names(whole) == sorted(STYLES)
    shutil.rmtree(movable.parent / "styles")
    text = write_report(movable).read_text("utf-8")
    assert reference_names(text) == []
    assert sorted(", ".join(told_gone(text)).split(", ")) == sorted(used(movable))
    assert text.count("<img") == whole.count("<img") - len(STYLES)


def test_a_reference_that_was_changed_is_not_shown_as_the_one_that_was_used(movable: Path) -> None:
    name = min(used(movable))
    other = next(style for style in STYLES if style != name)
    styles = movable.parent / "styles"
    shutil.copy(styles / f"{other}.png", styles / f"{name}.png")
    text = write_report(movable).read_text("utf-8")
    assert told_gone(text) == [name]
    assert reference_names(text) == sorted(set(STYLES) - {name})


def test_scores_that_are_no_number_are_counted_apart(finished: Path, tmp_path: Path) -> None:
    corpus = copied(finished, tmp_path)
    edit_verdicts(corpus, **{"score.texture": math.nan})
    text = write_report(corpus).read_text("utf-8")
    assert "texture (24 not a number)" in text
    assert "no values" in text


def test_an_unfinished_corpus_is_one_error(finished: Path, tmp_path: Path) -> None:
    corpus = copied(finished, tmp_path)
    (corpus / "verdicts.parquet").unlink()
    with pytest.raises(CorpusError, match=r"verdicts\.parquet: expected a readable parquet file"):
        write_report(corpus)


def test_a_corpus_without_a_manifest_has_a_page_without_hashes(
    finished: Path, tmp_path: Path
) -> None:
    corpus = copied(finished, tmp_path)
    (corpus / "manifest.json").unlink()
    found = page(corpus)
    assert found.cells[-1] == ["file", "bytes", "sha256"]
    assert CAPTIONS[0] in {line for _, _, lines in found.pictures for line in lines}


# --- charts -----------------------------------------------------------------------------------


def bars(svg: str) -> list[tuple[float, float, float, str]]:
    """(x, y, height, colour) of every bar that has a height."""
    found = re.findall(r'<rect x="(.*?)" y="(.*?)" width=".*?" height="(.*?)" fill="(.*?)"/>', svg)
    return [(float(x), float(y), float(h), c) for x, y, h, c in found if float(h)]


def test_a_histogram_stacks_kept_and_dropped() -> None:
    svg = histogram_svg("a < b", [0.0, 0.0, 1.0], [0.0])
    step = (460 - 44) / 30
    assert bars(svg) == [
        (44.0, pytest.approx(48.7, abs=0.05), pytest.approx(77.3, abs=0.05), "var(--a)"),
        (44.0, 10.0, pytest.approx(38.7, abs=0.05), "var(--b)"),
        (pytest.approx(44 + 29 * step, abs=0.05), pytest.approx(87.3, abs=0.05),
         pytest.approx(38.7, abs=0.05), "var(--a)"),
    ]  # fmt: skip
    assert "<figcaption>a &lt; b</figcaption>" in svg
    assert re.findall(r">([^<>]+)</text>", svg) == ["0", "1", "3"]


def test_a_histogram_of_one_value_or_of_none_is_drawn() -> None:
    assert len(bars(histogram_svg("one", [0.5, 0.5], []))) == 1
    assert "no values" in histogram_svg("none", [], [])
    assert histogram_svg("n", [math.nan, 0.5], [math.inf]) == histogram_svg(
        "n (2 not a number)", [0.5], []
    )


def test_a_line_chart_goes_through_its_points() -> None:
    svg = line_chart_svg("loss", {"sft <1>": [(0, 4.0), (10, 2.0)], "none": []})
    assert 'points="44.0,10.0 454.0,120.0"' in svg
    assert re.findall(r">([^<>]+)</text>", svg) == ["sft &lt;1&gt; 2", "4", "2", "0", "10"]
    assert "no values" in line_chart_svg("loss", {})


def test_a_line_chart_leaves_out_what_is_no_number() -> None:
    line = [(0, 4.0), (5, math.nan), (10, 2.0)]
    assert line_chart_svg("loss", {"a": line}) == line_chart_svg("loss", {"a": [line[0], line[2]]})
    assert "no values" in line_chart_svg("loss", {"a": [(0, math.nan)]})
