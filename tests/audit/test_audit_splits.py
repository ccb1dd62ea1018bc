"""The audit of splits and ratio: nothing in both splits, and raw to stylized as asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders.damaged_corpus import (
    edit_table,
    forge,
    move_to_val,
    rewrite_split,
)

from stylear.curate.audit.auditor import audit
from stylear.curate.audit.pairs import Placement, check_pairs
from stylear.curate.audit.splits import check_near_duplicates
from stylear.curate.audit.tables import PairIndex
from stylear.curate.corpus.layout import RECIPE
from stylear.curate.corpus.shards import iter_pairs, read_shard
from stylear.curate.recipe import load_recipe


@pytest.mark.parametrize("forged", [False, True])
def test_a_row_moved_between_splits_is_found(corpus: Path, forged: bool) -> None:
    key = move_to_val(corpus, "stylized")
    if forged:
        forge(corpus)
    pair = next(p for p in read_shard(corpus / "val" / "00000.tar") if p.key == key)
    result = audit(corpus)
    assert {(d.where, d.expected) for d in result.differences if d.kind == "split"} >= {
        (f"val content {pair.origin.content}", "train"), (f"val reference {pair.origin.reference}", "train"),
    }  # fmt: skip
    assert any(d.kind == "changed" for d in result.differences) is not forged


def test_one_picture_in_both_splits_is_found(corpus: Path) -> None:
    """The same stored bytes under another content: only the picture crosses."""
    train, val = (list(iter_pairs(corpus / split)) for split in ("train", "val"))
    picture = next(pair.image for pair in train if pair.origin.kind == "raw")
    at = next(n for n, pair in enumerate(val) if pair.origin.kind == "raw")
    val[at] = replace(val[at], image=picture)
    rewrite_split(corpus, "val", val)
    forge(corpus)
    crossing = [d for d in audit(corpus).differences if d.kind == "split"]
    assert [(d.expected, d.found) for d in crossing] == [("one split", "train and val")]
    assert crossing[0].where.startswith("train, val picture ")
    assert ("lineage", val[at].key) in {
        (difference.kind, difference.key) for difference in audit(corpus).differences
    }


def test_a_pair_left_out_for_a_ratio_that_is_not_reached_is_found(corpus: Path) -> None:
    train = list(iter_pairs(corpus / "train"))
    raw = next(pair for pair in train if pair.origin.kind == "raw")
    rewrite_split(corpus, "train", [pair for pair in train if pair.key != raw.key])

    def left_out(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["key"] == raw.key)
        row.update(split=None, kept=False, stage="mix", reason="ratio")

    edit_table(corpus / "mix.parquet", left_out)
    forge(corpus)
    ratio = [d for d in audit(corpus).differences if d.kind == "ratio"]
    assert [d.where for d in ratio] == ["train"]
    assert ratio[0].found.endswith("left out for the ratio")


def test_more_raw_pairs_than_asked_are_found(corpus: Path) -> None:
    text = (corpus / "recipe.yaml").read_text()
    recipe = text.replace("raw_per_stylized: 1.0", "raw_per_stylized: 0.5")
    assert recipe != text
    (corpus / "recipe.yaml").write_text(recipe)
    forge(corpus)
    differences = [
        difference for difference in audit(corpus).differences if difference.kind != "recipe"
    ]
    assert [(difference.kind, difference.where) for difference in differences] == [
        ("ratio", "train"),
        ("ratio", "val"),
    ]


def test_a_child_in_another_split_than_its_parent_is_found(corpus: Path) -> None:
    val = next(p for p in iter_pairs(corpus / "val") if p.origin.kind == "raw")

    def adopt(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["kind"] == "stylized").update(parent=val.key)

    edit_table(corpus / "train" / "00000.parquet", adopt)
    [difference] = [d for d in audit(corpus).differences if d.kind == "split"]
    assert (difference.file, difference.expected, difference.found) == (
        "train/00000.parquet", f"its parent {val.key} in train", "val",
    )  # fmt: skip


def test_near_duplicates_in_both_splits_are_found_if_the_recipe_has_them(corpus: Path) -> None:
    train, val = (next(iter_pairs(corpus / split)).key for split in ("train", "val"))

    def near(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["near"] = 7 if row["key"] in (train, val) else None

    edit_table(corpus / "columns.parquet", near)
    pairs = PairIndex(corpus)
    placement = Placement(pairs)
    assert list(check_pairs(corpus, pairs, placement)) == []
    recipe = load_recipe(corpus / RECIPE)
    assert list(check_near_duplicates(corpus, recipe, pairs, placement)) == []
    recipe = load_recipe(corpus / RECIPE, {"filter.duplicates.phash_distance": 4})
    [difference] = check_near_duplicates(corpus, recipe, pairs, placement)
    assert difference.where == f"mix.parquet {train} and {val}"
    assert difference.expected == "near duplicates in one split"
