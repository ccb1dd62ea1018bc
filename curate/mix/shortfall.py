"""Shortfalls: where the mix differs from the recipe for lack of pairs, and what to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stylear.curate.corpus import parquet

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

TOLERANCE = 0.01  # a smaller difference from the ratio is rounding


def count_split(folder: Path) -> dict[str, int]:
    """Counts of train/ or val/: shards, pairs by kind, distinct contents and references."""
    import numpy as np

    from stylear.curate.corpus.columns import (
        NONE,
        DictionaryColumn,
        combine_chunks,
        concatenate,
        hash_identities,
    )

    kinds: Counter[str] = Counter()
    parts = []
    for _, table in parquet.read_tables(folder, ["kind", "content", "reference"]):
        columns = {name: combine_chunks(table[name]) for name in table.column_names}
        kinds.update(DictionaryColumn(columns["kind"]).counts())
        parts.append({name: hash_identities(columns[name]) for name in ("content", "reference")})
    ids = concatenate(parts)
    distinct = {name: np.unique(column[column != NONE]) for name, column in ids.items()}
    return {
        "shards": len(parts),
        "pairs": kinds.total(),
        "raw": kinds["raw"],
        "stylized": kinds["stylized"],
        "contents": len(distinct.get("content", ())),
        "references": len(distinct.get("reference", ())),
    }


def describe_shortfalls(splits: Mapping[str, Mapping[str, int]], recipe: Recipe) -> list[str]:
    """One sentence per shortfall, with what was asked and what was mixed; empty without one.

    `splits` has the counts of `count_split` for train and val.
    """
    shortfalls = []
    empty = [split for split in splits if not splits[split]["raw"] + splits[split]["stylized"]]
    if "train" in empty:
        shortfalls.append(
            "train has no pair, so there is nothing to train on: add raw pairs, lower the thresholds of the"
            " filter, or lower mix.val_fraction"
        )
        if "val" in empty:
            return shortfalls
    if not recipe.references:
        return shortfalls
    ratio = recipe.mix.raw_per_stylized
    for split, counts in splits.items():
        raw, stylized = counts["raw"], counts["stylized"]
        if stylized and raw < ratio * stylized * (1 - TOLERANCE):
            shortfalls.append(
                f"{split} has {raw / stylized:.2f} raw pairs for each stylized one, not the {ratio:g} asked:"
                f" only {raw} raw pairs were kept beside {stylized} stylized ones; add raw pairs, lower"
                " mix.raw_per_stylized, or set mix.on_shortfall: scale"
            )
    if splits["train"]["raw"] and not splits["train"]["stylized"]:
        shortfalls.append(
            "train has no stylized pair; see the reasons in the funnel, lower the thresholds, or add contents"
        )
    if recipe.mix.val_fraction > 0:
        missing = [
            what
            for what, name in (("stylized pair", "stylized"), ("raw pair", "raw"))
            if not splits["val"][name]
        ]
        if missing:
            shortfalls.append(
                f"val has no {' and no '.join(missing)}, so training cannot be validated on it: contents and"
                " references belong to val by a hash of their names; add references and contents, raise"
                " mix.val_fraction, or set it to 0 for none"
            )
    return shortfalls
