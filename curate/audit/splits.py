"""Splits: nothing is in both train and val, and the raw:stylized ratio is the configured one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stylear.curate.audit.difference import Difference
from stylear.curate.audit.keys import KeyIndex, encode_keys
from stylear.curate.audit.pairs import LEFT_OUT, Placement
from stylear.curate.audit.tables import PairIndex, equals, list_tables, look_up, read_file
from stylear.curate.corpus.columns import Ids, combine_chunks, to_objects
from stylear.curate.corpus.layout import COLUMNS, KINDS, MIX
from stylear.curate.corpus.ledger import ALL, Ledger
from stylear.curate.corpus.parquet import read_tables
from stylear.curate.corpus.split import SPLITS, assign_split
from stylear.curate.corpus.tombstones import REMOVED

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import Recipe

READ = dict.fromkeys(("key", "kind", "content", "reference", "parent", "image_sha256"), "string?")
NAMES = ("content", "reference", "picture")
BOTH = "train, val"


def check_splits(
    corpus: Path, recipe: Recipe, pairs: PairIndex, placement: Placement
) -> Iterator[Difference]:
    """Contents, references, pictures and families in both splits, or in the wrong one by their hash."""
    val = {name: KeyIndex(read_distinct(corpus, "val", name)) for name in NAMES}
    reported: set[tuple[str, str]] = set()
    for split in SPLITS:
        for path in list_tables(corpus / split):
            for table in read_file(path, READ):
                if split == "train":
                    yield from find_shared(table, val, reported)
                yield from find_misplaced(table, split, recipe, reported)
                file = f"{split}/{path.name}"
                yield from find_apart_from_parents(table, file, split, pairs, placement)


def select_values(table: pa.Table, name: str) -> pa.Array:
    """The distinct contents, references or raw pictures of some samples; pictures by half of their hash."""
    import pyarrow.compute as pc

    if name == "picture":
        raw = table["image_sha256"].filter(pc.equal(table["kind"], "raw"))
        return pc.unique(combine_chunks(raw).drop_null())
    return pc.unique(combine_chunks(table[name]).drop_null())


def encode_values(values: pa.Array, name: str) -> Ids:
    """The values as 16 bytes each; of a picture's hash the first half."""
    import pyarrow.compute as pc

    return encode_keys(pc.utf8_slice_codeunits(values, 0, 32) if name == "picture" else values)


def read_distinct(corpus: Path, split: str, name: str) -> Ids:
    """The distinct contents, references or pictures of a split, sorted."""
    parts = [np.zeros(0, "S16")]
    for path in list_tables(corpus / split):
        for table in read_file(path, READ):
            parts.append(encode_values(select_values(table, name), name))
    return np.unique(np.concatenate(parts))


def find_shared(
    table: pa.Table, val: Mapping[str, KeyIndex], reported: set[tuple[str, str]]
) -> Iterator[Difference]:
    """Values of train that are in val too."""
    for name in NAMES:
        values = select_values(table, name)
        shared = values.filter(val[name].find(encode_values(values, name)) >= 0)
        for value in shared.to_pylist():
            if (name, value) not in reported:
                reported.add((name, value))
                yield Difference("split", BOTH, "one split", "train and val", f"{name} {value}")


def find_misplaced(
    table: pa.Table, split: str, recipe: Recipe, reported: set[tuple[str, str]]
) -> Iterator[Difference]:
    """Contents and references whose hash assigns them to the other split."""
    for name in ("content", "reference"):
        for value in to_objects(select_values(table, name)):
            right = assign_split(value, recipe.seed, recipe.mix.val_fraction)
            if right != split and (split, value) not in reported:
                reported.add((split, value))
                yield Difference("split", split, right, split, f"{name} {value}")


def find_apart_from_parents(
    table: pa.Table, file: str, split: str, pairs: PairIndex, placement: Placement
) -> Iterator[Difference]:
    """Samples whose parent is in the other split."""
    table = table.filter(table["parent"].is_valid())
    parents = pairs.find(table["parent"])
    number = np.where(parents >= 0, look_up(placement.split, parents), LEFT_OUT)
    apart = (number != LEFT_OUT) & (number != SPLITS.index(split))
    for row in table.filter(apart).to_pylist():
        expected = f"its parent {row['parent']} in {split}"
        other = next(name for name in SPLITS if name != split)
        yield Difference("split", file, expected, other, row["key"])


def check_near_duplicates(
    corpus: Path, recipe: Recipe, pairs: PairIndex, placement: Placement
) -> Iterator[Difference]:
    """Near duplicates, as the recipe defines them, of which one is in train and one in val."""
    path = corpus / COLUMNS
    if recipe.filter.duplicates.phash_distance is None or not path.is_file():
        return
    first: dict[str, dict[int, str]] = {split: {} for split in SPLITS}
    for table in read_file(path, {"key": "string", "near": "int32?"}):
        table = table.filter(table["near"].is_valid())
        indices = pairs.find(table["key"])
        for split in SPLITS:
            near = table.filter(placement.is_in(split, indices))
            groups, keys = near["near"].to_pylist(), near["key"].to_pylist()
            first[split] = dict(zip(groups, keys, strict=True)) | first[split]
    for group in sorted(first["train"].keys() & first["val"].keys()):
        pair_keys = " and ".join(first[split][group] for split in SPLITS)
        yield Difference("split", MIX, "near duplicates in one split", "train and val", pair_keys)


def read_removed(corpus: Path) -> Mapping[str, Mapping[str, int]]:
    """How many samples of each kind were forgotten since the mix, by split."""
    mix = Ledger(corpus).entry("mix", ALL)
    return {} if mix is None else mix.note.get(REMOVED, {})


def check_ratio(
    corpus: Path, recipe: Recipe, placement: Placement, removed: Mapping[str, Mapping[str, int]]
) -> Iterator[Difference]:
    """More raw pairs than asked, or fewer although some were left out for the ratio.

    Forgotten samples are counted as present, because nothing was drawn to replace them.
    """
    left_out = count_left_out(corpus, recipe, placement)
    for split in SPLITS:
        in_split = count_kinds(corpus, split)
        forgotten = removed.get(split, {})
        raw, stylized = (in_split[name] + forgotten.get(name, 0) for name in KINDS)
        num_expected = math.floor(recipe.mix.raw_per_stylized * stylized + 0.5)
        if stylized and raw > num_expected:
            yield Difference("ratio", split, f"at most {num_expected} raw pairs", f"{raw}")
        elif left_out[split] and raw < num_expected:
            found = f"{raw}, and {left_out[split]} left out for the ratio"
            yield Difference("ratio", split, f"{num_expected} raw pairs", found)


def count_kinds(corpus: Path, split: str) -> Counter[str]:
    """The number of raw and stylized samples of a split."""
    counts: Counter[str] = Counter()
    for _, table in read_tables(corpus / split, ["kind"]):
        for kind in KINDS:
            counts[kind] += int(equals(table["kind"], kind).sum())
    return counts


def count_left_out(corpus: Path, recipe: Recipe, placement: Placement) -> Counter[str]:
    """The number of pairs that the mix left out for the ratio, by the split that they belong to."""
    counts: Counter[str] = Counter()
    start = 0
    for kind in KINDS:
        for _, table in read_tables(corpus / kind, ["content"]):
            mask = placement.left_out_for_ratio[start : start + len(table)]
            for content in to_objects(combine_chunks(table["content"]).filter(mask)):
                counts[assign_split(content, recipe.seed, recipe.mix.val_fraction)] += 1
            start += len(table)
    return counts
