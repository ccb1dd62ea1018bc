"""Preference pairs: which candidates are chosen and rejected, and what is written of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.candidate_rows import Candidate, choose_sides
from builders.finished_corpus import finished_settings
from builders.pictures_folder import tree, write_recipe

from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.shards import iter_pairs, tar_samples
from stylear.curate.pairs.preferences import build_preferences
from stylear.curate.recipe import Recipe, load_recipe
from stylear.errors import CorpusError
from stylear.pair import digest


def candidate(key: str, rank: float | None, group: str | None = "g", **changes: Any) -> Candidate:
    values: dict[str, Any] = {
        "key": key,
        "kind": "stylized",
        "source": "synthesizer:test",
        "content": "c",
        "parent": None,
        "reference": "mosaic",
        "group": group,
        "image_sha256": f"image of {key}",
        "source_sha256": None,
        "kept": True,
        "stage": None,
        "reason": None,
        "rank": rank,
    }
    return Candidate(**values | changes)


def chosen(candidates: list[Candidate], train: str, margin: float = 0.1) -> list[tuple[str, str]]:
    sides = choose_sides(candidates, set(train), margin)
    return [(best.key, worst.key) for best, worst in sides]


def test_the_best_meets_the_worst_of_its_group() -> None:
    group = [candidate("a", 0.4), candidate("b", 0.9), candidate("c", 0.1), candidate("d", 0.6)]
    assert chosen(group, "abcd") == [("b", "c")]


def test_every_group_gives_one_pair_and_no_pair_crosses_groups() -> None:
    group = [candidate("a", 0.9, "g"), candidate("b", 0.2, "h"), candidate("c", 0.5, "g")]
    group += [candidate("d", 0.7, "h"), candidate("e", 0.0, "alone")]
    assert chosen(group, "abcde") == [("a", "c"), ("d", "b")]


def test_only_what_is_in_train_can_be_chosen() -> None:
    group = [candidate("a", 0.9), candidate("b", 0.6), candidate("c", 0.1)]
    assert chosen(group, "bc") == [("b", "c")]
    assert chosen(group, "c") == []  # the best of train is the worst of all
    assert chosen(group, "") == []


def test_what_the_filter_dropped_can_still_be_rejected() -> None:
    group = [candidate("a", 0.9), candidate("b", 0.1, kept=False, reason="not-best")]
    assert chosen(group, "a") == [("a", "b")]


@pytest.mark.parametrize(
    ("high", "low", "margin", "count"),
    [
        (0.62, 0.60, 0.02, 1),
        (0.62, 0.60, 0.020001, 0),
        (0.61, 0.60, 0.02, 0),
        (0.5, 0.5, 0.0, 0),  # no lead is no preference
        (0.500001, 0.5, 0.0, 1),
        (0.5000001, 0.5, 0.0, 0),  # less than what is written down
    ],
)
def test_the_lead_reaches_the_margin(high: float, low: float, margin: float, count: int) -> None:
    """Ranks come back from the verdicts as 32-bit floats; 0.62 - 0.60 is 0.02 all the same."""
    ranks = [float(np.float32(value)) if margin else value for value in (high, low)]
    group = [candidate("a", ranks[0]), candidate("b", ranks[1])]
    assert len(chosen(group, "ab", margin)) == count


def test_without_a_ranking_or_a_group_nothing_is_chosen() -> None:
    assert chosen([candidate("a", None), candidate("b", None)], "ab", 0.0) == []
    assert chosen([candidate("a", 0.9), candidate("b", None)], "ab", 0.0) == []
    assert chosen([candidate("a", 0.9, None), candidate("b", 0.1, None)], "ab", 0.0) == []


def test_a_candidate_without_an_image_is_in_no_pair() -> None:
    failed = candidate("c", 0.0, image_sha256=None)
    assert chosen([candidate("a", 0.9), candidate("b", 0.4), failed], "ab") == [("a", "b")]
    assert chosen([candidate("a", 0.9), failed], "a") == []


def test_an_image_is_not_preferred_to_itself() -> None:
    group = [candidate("a", 0.9, image_sha256="s"), candidate("b", 0.1, image_sha256="s")]
    assert chosen(group, "ab") == []


# --- what is written --------------------------------------------------------------------------


def test_a_sample_has_both_images_the_caption_and_the_row(finished: Path) -> None:
    pairs = {pair.key: pair for pair in iter_pairs(finished / "stylized")}
    verdicts = {r["key"]: r for r in read_table(finished / "verdicts.parquet").to_pylist()}
    train = {pair.key for pair in iter_pairs(finished / "train")}
    rows, samples = [], []
    for path in sorted((finished / "preferences").glob("*.tar")):
        samples += list(tar_samples(path))
        rows += read_table(path.with_suffix(".parquet")).to_pylist()
    assert len(rows) == len(samples) > 3
    for row, (key, files) in zip(rows, samples, strict=True):
        best, worst = pairs[row["chosen"]], pairs[row["rejected"]]
        assert key == row["key"] == digest("preference", best.key, worst.key)
        assert files == {
            "chosen.png": best.image,
            "rejected.png": worst.image,
            "txt": best.caption.encode(),
            "json": files["json"],
        }
        assert json.loads(files["json"]) == row
        assert best.key in train
        assert best.origin.reference == worst.origin.reference == row["reference"]
        assert best.origin.parent == worst.origin.parent
        assert row["chosen_score"] == pytest.approx(verdicts[best.key]["rank"], abs=1e-6)
        assert row["rejected_score"] == pytest.approx(verdicts[worst.key]["rank"], abs=1e-6)
        assert row["margin"] == round(row["chosen_score"] - row["rejected_score"], 6) > 0


def test_the_index_lists_the_shards(finished: Path) -> None:
    index = json.loads((finished / "preferences" / "wids.json").read_text())
    tars = sorted(path.name for path in (finished / "preferences").glob("*.tar"))
    assert [entry["url"] for entry in index["shardlist"]] == tars
    manifest = json.loads((finished / "manifest.json").read_text())
    count = sum(entry["nsamples"] for entry in index["shardlist"])
    assert count == manifest["counts"]["preferences"] > 3


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The corpus without its preferences."""
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    shutil.rmtree(corpus / "preferences")
    return corpus


def recipe(finished: Path, tmp_path: Path, **changes: Any) -> Recipe:
    values = finished_settings(**changes)
    for part in (*values["raw"], *values["references"]):
        part["path"] = str(finished.parent / part["path"])
    return load_recipe(write_recipe(tmp_path, values))


def test_building_again_gives_the_same_bytes(copy: Path, finished: Path, tmp_path: Path) -> None:
    build_preferences(copy, recipe(finished, tmp_path))
    assert tree(copy / "preferences") == tree(finished / "preferences")


def test_a_wide_margin_gives_an_empty_set_with_an_index(
    copy: Path, finished: Path, tmp_path: Path
) -> None:
    table = build_preferences(copy, recipe(finished, tmp_path, pairs={"margin": 1.0}))
    assert table.num_rows == 0
    assert table.column_names == [
        "key", "caption", "reference", "chosen", "rejected", "chosen_score", "rejected_score",
        "margin",
    ]  # fmt: skip
    assert [path.name for path in (copy / "preferences").iterdir()] == ["wids.json"]
    assert json.loads((copy / "preferences" / "wids.json").read_text())["shardlist"] == []


def test_without_mix_there_are_no_pairs(copy: Path, finished: Path, tmp_path: Path) -> None:
    (copy / "mix.parquet").unlink()
    with pytest.raises(CorpusError, match=r"mix\.parquet: expected this table, found nothing"):
        build_preferences(copy, recipe(finished, tmp_path))
    assert not (copy / "preferences").exists()
