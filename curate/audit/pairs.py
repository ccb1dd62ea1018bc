"""Pairs: every key occurs once at each stage that should have it, and no verdict has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stylear.curate.audit.difference import Difference
from stylear.curate.audit.tables import (
    MIX_TYPES,
    PAIR_TYPES,
    VERDICT_TYPES,
    PairIndex,
    digest_rows,
    equals,
    list_tables,
    look_up,
    read_file,
)
from stylear.curate.corpus.columns import Indices, Mask, combine_chunks
from stylear.curate.corpus.layout import MIX, VERDICTS
from stylear.curate.corpus.parquet import read_tables
from stylear.curate.corpus.split import SPLITS

if TYPE_CHECKING:
    import pyarrow as pa

LEFT_OUT = -1  # of the mix, for no split


class Placement:
    """Where each pair is: its verdict, its split in the mix, and how often each table has it."""

    def __init__(self, pairs: PairIndex) -> None:
        self.pairs = pairs
        self.kept: Mask = np.zeros(len(pairs), bool)  # by the filter
        self.split: NDArray[np.int8] = np.full(len(pairs), LEFT_OUT, np.int8)  # index in SPLITS
        self.left_out_for_ratio: Mask = np.zeros(len(pairs), bool)

    def is_in(self, split: str, indices: Indices) -> Mask:
        """Which of some pairs the mix has in a split; none has the index -1."""
        mask: Mask = (indices >= 0) & (look_up(self.split, indices) == SPLITS.index(split))
        return mask


class KeyCounter:
    """Counts how often a table has each pair, and finds those that it has too often or not at all."""

    def __init__(self, pairs: PairIndex, file: str) -> None:
        self.pairs, self.file = pairs, file
        self.counts = np.zeros(len(pairs), np.uint16)

    def count(self, keys: pa.ChunkedArray, indices: NDArray[np.int64]) -> Iterator[Difference]:
        """Count some rows; keys that no pair has are differences."""
        np.add.at(self.counts, indices[indices >= 0], 1)
        for row in np.flatnonzero(indices < 0).tolist():
            yield Difference("keys", self.file, "no such key", "the key", keys[row].as_py())

    def compare(self, expected: Mask) -> Iterator[Difference]:
        """Pairs that the table should have and lacks, has and should not have, or has twice."""
        wrong = np.flatnonzero(self.counts != expected)
        names = self.pairs.name(wrong.tolist())
        for index in wrong.tolist():
            count = int(self.counts[index])
            if not count:
                outcome = ("the key", "no such key")
            elif not expected[index]:
                outcome = ("no such key", "the key")
            else:
                outcome = ("the key once", f"{count} times")
            yield Difference("keys", self.file, *outcome, names[index])


def check_pairs(corpus: Path, pairs: PairIndex, placement: Placement) -> Iterator[Difference]:
    """Keys that are lost, invented or repeated, changed rows, and drops without a reason.

    The verdict and the split of each pair are put into `placement`.
    """
    repeated = pairs.find_repeated()
    names = pairs.name(repeated.tolist())
    for index in repeated.tolist():
        yield Difference("keys", "raw, stylized", "the key once", "the key again", names[index])
    first = np.ones(len(pairs), bool)
    first[repeated] = False
    yield from check_parents(corpus, pairs)
    yield from check_verdicts(corpus, pairs, placement, first)
    yield from check_mix(corpus, pairs, placement)
    for split in SPLITS:
        yield from check_samples(corpus, split, pairs, placement)


def check_parents(corpus: Path, pairs: PairIndex) -> Iterator[Difference]:
    """Pairs whose parent is not a raw pair."""
    for kind in ("raw", "stylized"):
        for path, table in read_tables(corpus / kind, ["key", "parent"]):
            table = table.filter(table["parent"].is_valid())
            parents = pairs.find(table["parent"])
            known = parents >= 0
            orphans = ~known
            orphans[known] = pairs.stylized[parents[known]]
            for row in table.filter(orphans).to_pylist():
                expected = f"a raw pair {row['parent']} as its parent"
                yield Difference("lineage", f"{kind}/{path.name}", expected, "none", row["key"])


def check_verdicts(
    corpus: Path, pairs: PairIndex, placement: Placement, first: Mask
) -> Iterator[Difference]:
    """Pairs without one verdict, drops without a reason, and other reasons than an earlier stage gave."""
    counter = KeyCounter(pairs, VERDICTS)
    for table in read_file(corpus / VERDICTS, VERDICT_TYPES):
        indices = pairs.find(table["key"])
        yield from counter.count(table["key"], indices)
        kept = combine_chunks(table["kept"]).to_numpy(zero_copy_only=False)
        placement.kept[indices[(indices >= 0) & kept]] = True
        yield from check_reasons(VERDICTS, table, kept)
        reasons = pairs.reasons.encode(table["reason"])
        dropped = (indices >= 0) & ~look_up(pairs.kept, indices)
        changed = dropped & ((reasons != look_up(pairs.reason, indices)) | kept)
        for row in np.flatnonzero(changed).tolist():
            code = int(pairs.reason[indices[row]])
            expected = f"the reason {pairs.reasons.words[code] if code >= 0 else None}"
            found = table["reason"][row].as_py() or "no reason"
            yield Difference("verdict", VERDICTS, expected, found, table["key"][row].as_py())
    yield from counter.compare(first)


def check_mix(corpus: Path, pairs: PairIndex, placement: Placement) -> Iterator[Difference]:
    """Pairs that the filter kept and the mix lacks, or the other way round."""
    counter = KeyCounter(pairs, MIX)
    for table in read_file(corpus / MIX, MIX_TYPES):
        indices = pairs.find(table["key"])
        yield from counter.count(table["key"], indices)
        kept = combine_chunks(table["kept"]).to_numpy(zero_copy_only=False)
        yield from check_reasons(MIX, table, kept)
        known = indices >= 0
        for number, split in enumerate(SPLITS):
            placement.split[indices[known & equals(table["split"], split)]] = number
        placement.left_out_for_ratio[indices[known & equals(table["reason"], "ratio")]] = True
    yield from counter.compare(placement.kept)


def check_samples(
    corpus: Path, split: str, pairs: PairIndex, placement: Placement
) -> Iterator[Difference]:
    """Samples of a split that the mix does not have there, and rows that differ from those of their pairs."""
    counter = KeyCounter(pairs, split)
    for path in list_tables(corpus / split):
        for table in read_file(path, PAIR_TYPES):
            indices = pairs.find(table["key"])
            yield from counter.count(table["key"], indices)
            changed = (indices >= 0) & (look_up(pairs.rows, indices) != digest_rows(table))
            for key in table["key"].filter(changed).to_pylist():
                expected, found = "its row of raw or stylized", "a different row"
                yield Difference("lineage", f"{split}/{path.name}", expected, found, key)
    yield from counter.compare(placement.split == SPLITS.index(split))


def check_reasons(file: str, table: pa.Table, kept: Mask) -> Iterator[Difference]:
    """Dropped pairs without a reason."""
    reasons = combine_chunks(table["reason"]).fill_null("")
    for key in table["key"].filter(~kept & equals(reasons, "")).to_pylist():
        yield Difference("verdict", file, "a reason", "none", key)
