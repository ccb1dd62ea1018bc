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
from stylear.curate.corpus.columns import NONE, TextIndex, Texts, to_bytes, to_objects
from stylear.curate.corpus.layout import KINDS
from stylear.curate.corpus.ledger import ALL, Ledger
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
