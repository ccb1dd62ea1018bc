"""Candidates: all pairs of a corpus with their verdicts, one array per column.

A pair takes about 200 bytes, however long its caption, URL and details; `columns.py` says how.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.columns import (
    DictionaryColumn,
    Ids,
    Indices,
    Mask,
    combine_chunks,
    concatenate,
    count_repeated,
    first_occurrence,
    hash_identities,
    to_bytes,
)
from stylear.curate.corpus.layout import KINDS
from stylear.curate.corpus.parquet import read_tables
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

STRINGS = ("key", "content", "reference", "parent", "stage", "reason")
COMPARED = ("source", "image_sha256", "source_sha256")
ROW = ("kind", "details", "kept", *STRINGS, *COMPARED)


@dataclass(slots=True, eq=False)
class Candidates:
    """The columns of pairs that filter, mix and pairs use, with their ranks and verdicts."""

    key: pa.StringArray
    content: pa.StringArray
    reference: pa.StringArray
    parent: pa.StringArray
    group: pa.StringArray  # candidates of one prompt, content and reference
    source: Ids
    image: Ids  # of the stored bytes; NONE without an image
    source_bytes: Ids
    stylized: Mask
    kept: Mask
    stage: DictionaryColumn
    reason: DictionaryColumn
    duplicate_of: Indices  # of the pair that a duplicate repeats; -1: none
    rank: NDArray[np.float64]  # higher is better; NaN: unknown

    def __len__(self) -> int:
        return len(self.kept)

    def has(self, name: str) -> Mask:
        """A mask of the pairs that have a value in a column (reference, group, ...)."""
        is_set: Mask = getattr(self, name).is_valid().to_numpy(zero_copy_only=False)
        return is_set


def read_pairs(corpus: Path) -> Candidates:
    """All pairs of a corpus without scores, raw before stylized, in shard order.

    Raises CorpusError for a repeated key.
    """
    pairs = concatenate_candidates(
        table_to_columns(table) for kind in KINDS for _, table in read_tables(corpus / kind, ROW)
    )
    if twice := count_repeated(to_bytes(pairs.key)):
        raise CorpusError(
            f"{corpus}: expected unique keys, found {twice} twice in raw and stylized"
        )
    return pairs


def table_to_columns(table: pa.Table) -> dict[str, Any]:
    """The columns of one shard's table as the arrays of `Candidates`."""
    import pyarrow as pa

    stylized = combine_chunks(table["kind"]).to_numpy(zero_copy_only=False) == "stylized"
    return {
        **{name: combine_chunks(table[name]) for name in STRINGS},
        **{name: hash_identities(combine_chunks(table[name])) for name in COMPARED},
        "group": pa.array(candidate_groups(table["details"].to_pylist(), stylized), pa.string()),
        "stylized": stylized,
        "kept": combine_chunks(table["kept"]).to_numpy(zero_copy_only=False),
    }


def candidate_groups(details: list[str], stylized: Mask) -> Iterator[str | None]:
    """The candidate group of each stylized pair, read from its details."""
    for text, is_candidate in zip(details, stylized, strict=True):
        yield json.loads(text).get("group") if is_candidate else None


def concatenate_candidates(parts: Iterable[Mapping[str, Any]]) -> Candidates:
    """The pairs of all parts as Candidates without scores and verdicts."""
    import pyarrow as pa

    empty = pa.table({name: pa.array([], pa.string()) for name in ROW}).set_column(
        ROW.index("kept"), "kept", pa.array([], pa.bool_())
    )
    columns = concatenate(chain([table_to_columns(empty)], parts))
    size = len(columns["kept"])
    return Candidates(
        **{name: columns[name] for name in ("key", "content", "reference", "parent", "group")},
        source=columns["source"],
        image=columns["image_sha256"],
        source_bytes=columns["source_sha256"],
        stylized=columns["stylized"],
        kept=columns["kept"],
        stage=DictionaryColumn(columns["stage"]),
        reason=DictionaryColumn(columns["reason"]),
        duplicate_of=np.full(size, -1),
        rank=np.full(size, np.nan),
    )


def rank_candidates(pairs: Candidates, indices: Indices) -> tuple[Indices, Indices]:
    """The indices sorted by group, the best candidate first, and the start of each one's group.

    Groups come in the order of their first pair.
    """
    group = first_occurrence(hash_identities(pairs.group.take(indices)))
    ranks = np.nan_to_num(pairs.rank[indices], nan=-1.0)
    order = np.lexsort((to_bytes(pairs.key.take(indices)), -ranks, group))
    ordered = group[order]
    return indices[order], np.searchsorted(ordered, ordered)


def parse_style(reference: str) -> str:
    """The style that a reference shows."""
    return reference.split("--")[0]
