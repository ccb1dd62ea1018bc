"""Splits: nothing is in both train and val, and the raw:stylized ratio is the configured one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stylear.curate.audit.difference import Difference
from stylear.curate.audit.tables import Tables, equals
from stylear.curate.corpus.columns import (
    NONE,
    TextIndex,
    Texts,
    combine_chunks,
    to_bytes,
    to_objects,
)
from stylear.curate.corpus.layout import COLUMNS, KINDS, MIX
from stylear.curate.corpus.ledger import ALL, Ledger
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.split import SPLITS, assign_split
from stylear.curate.corpus.tombstones import REMOVED

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


def check_splits(tables: Tables, recipe: Recipe) -> Iterator[Difference]:
    """Contents, references and pictures in both splits; contents and references in the wrong split."""
    names = ("content", "reference", "picture")
    present: dict[str, dict[str, Texts]] = {}
    for split in SPLITS:
        samples = tables.splits[split]
        found = {name: np.unique(to_bytes(samples[name])) for name in ("content", "reference")}
        found["picture"] = np.unique(samples["picture"][equals(samples["kind"], "raw")])
        present[split] = {name: column[column != NONE] for name, column in found.items()}
    for name in names:
        for value in np.intersect1d(present["train"][name], present["val"][name]):
            yield Difference(
                "split", "train, val", "one split", "train and val", f"{name} {value.decode()}"
            )
    for split in SPLITS:
        for name in ("content", "reference"):
            for value in present[split][name]:
                right = assign_split(value.decode(), recipe.seed, recipe.mix.val_fraction)
                if right != split:
                    yield Difference("split", split, right, split, f"{name} {value.decode()}")


def check_families(tables: Tables) -> Iterator[Difference]:
    """Stylized samples whose raw parent is in the other split."""
    raw, children = {}, {}
    for split in SPLITS:
        samples = tables.splits[split]
        raw[split] = np.unique(samples["key"][equals(samples["kind"], "raw")])
        parents = np.unique(to_bytes(samples["parent"]))
        children[split] = parents[parents != NONE]
    for split, other in (SPLITS, SPLITS[::-1]):
        for key in np.intersect1d(children[split], raw[other]):
            expected = f"the split of its stylized children, {split}"
            yield Difference("split", other, expected, other, key.decode())


def check_near_duplicates(corpus: Path, recipe: Recipe) -> Iterator[Difference]:
    """Near duplicates, as the recipe defines them, of which one is in train and one in val."""
    path = corpus / COLUMNS
    if recipe.filter.duplicates.phash_distance is None or not path.is_file():
        return
    table = read_table(path, ["key", "near"])
    table = table.filter(table["near"].is_valid())
    near, keys = combine_chunks(table["near"]).to_numpy(), combine_chunks(table["key"])
    mix = read_table(corpus / MIX, ["key", "split"])
    rows = TextIndex(to_bytes(combine_chunks(mix["key"]))).find(to_bytes(keys))
    splits = combine_chunks(mix["split"]).fill_null("").take(np.maximum(rows, 0))
    first: dict[str, dict[int, int]] = {}
    for split in SPLITS:
        present = np.flatnonzero((rows >= 0) & equals(splits, split))
        first[split] = dict(zip(near[present].tolist(), present.tolist(), strict=True))
    for group in sorted(first["train"].keys() & first["val"].keys()):
        one, other = (keys[first[split][group]].as_py() for split in SPLITS)
        yield Difference(
            "split", MIX, "near duplicates in one split", "train and val", f"{one} and {other}"
        )


def read_removed(corpus: Path) -> Mapping[str, Mapping[str, int]]:
    """How many samples of each kind were forgotten since the mix, by split."""
    mix = Ledger(corpus).entry("mix", ALL)
    return {} if mix is None else mix.note.get(REMOVED, {})


def check_ratio(
    tables: Tables, recipe: Recipe, removed: Mapping[str, Mapping[str, int]]
) -> Iterator[Difference]:
    """More raw pairs than asked, or fewer although some were left out for the ratio.

    Forgotten samples are counted as present, because nothing was drawn to replace them.
    """
    mix = tables.mix
    out = TextIndex(tables.pairs["key"]).find(mix["key"][equals(mix["reason"], "ratio")])
    left_out = Counter(
        assign_split(content, recipe.seed, recipe.mix.val_fraction)
        for content in to_objects(tables.pairs["content"].take(out[out >= 0]))
    )
    for split in SPLITS:
        kind = tables.splits[split]["kind"]
        forgotten = removed.get(split, {})
        raw, stylized = (int(equals(kind, name).sum()) + forgotten.get(name, 0) for name in KINDS)
        wanted = math.floor(recipe.mix.raw_per_stylized * stylized + 0.5)
        if stylized and raw > wanted:
            yield Difference("ratio", split, f"at most {wanted} raw pairs", f"{raw}")
        elif left_out[split] and raw < wanted:
            found = f"{raw}, and {left_out[split]} left out for the ratio"
            yield Difference("ratio", split, f"{wanted} raw pairs", found)
