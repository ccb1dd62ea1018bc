"""The pairs of the explorer as columns of numbers, and the texts that the numbers stand for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.candidates import parse_style
from stylear.curate.corpus.columns import Indices, combine_chunks, to_bytes
from stylear.curate.corpus.layout import KINDS, ShardKind
from stylear.curate.corpus.licences import find_licence
from stylear.curate.corpus.parquet import read_table
from stylear.curate.report.sources import describe_source

if TYPE_CHECKING:
    from stylear.curate.report.facts import Facts

MAX_PAIRS = 100_000  # of the page (our choice): more are sampled
NONE = -1
COLUMNS = (
    "kind",  # 0 raw, 1 stylized
    "style", "outcome", "reference", "parent", "group", "duplicate_of", "licence", "source",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shard:
    """The pairs of one shard that the explorer shows."""

    kind: ShardKind
    unit: str
    rows: Indices  # in the shard, ascending
    start: int  # the first one's number among all shown pairs


@dataclass(frozen=True, slots=True)
class ExplorerRows:
    """The shown pairs, raw before stylized, in shard order."""

    shards: tuple[Shard, ...]
    indices: Indices  # in the facts
    columns: dict[str, NDArray[np.int32]]  # by the names of COLUMNS; -1 for none
    words: dict[str, list[str]]  # what the numbers of style, reference, licence and source mean
    keys: list[str]
    captions: list[str]
    sources: list[str]

    def __len__(self) -> int:
        return len(self.indices)


def read_rows(facts: Facts, limit: int = MAX_PAIRS) -> ExplorerRows:
    """The pairs of the explorer, at most `limit` of them. Raises CorpusError for a damaged table."""
    indices = sample_pairs(facts, limit)
    shards = tuple(locate_shards(facts.corpus, indices))
    keys: list[str] = []
    captions: list[str] = []
    sources: list[str] = []
    places: list[str | None] = []  # where raw pairs come from
    licences: list[str | None] = []
    for shard in shards:
        table = read_shard_table(facts.corpus, shard, ["key", "caption", "source", "details"])
        keys += table["key"].to_pylist()
        captions += table["caption"].to_pylist()
        sources += table["source"].to_pylist()
        raw = shard.kind == "raw"
        places += [describe_source(t) if raw else None for t in table["source"].to_pylist()]
        details = (json.loads(text) if raw else {} for text in table["details"].to_pylist())
        licences += [find_licence(row_details) for row_details in details]
    pairs = facts.pairs
    references = pairs.reference.take(indices).to_pylist()
    styles = [None if name is None else parse_style(name) for name in references]
    texts = {"style": styles, "reference": references, "licence": licences, "source": places}
    words = {name: sorted({t for t in column if t is not None}) for name, column in texts.items()}
    columns = {name: encode_words(texts[name], words[name]) for name in texts}
    columns["kind"] = pairs.stylized[indices].astype(np.int32)
    columns["outcome"] = facts.outcomes.codes[indices]
    numbers = {key: number for number, key in enumerate(keys)}
    parents = pairs.parent.take(indices).to_pylist()
    columns["parent"] = np.array([numbers.get(key, NONE) for key in parents], np.int32)
    originals = np.full(len(pairs), NONE, np.int32)
    originals[indices] = np.arange(len(indices))
    twins = pairs.duplicate_of[indices]
    columns["duplicate_of"] = np.where(twins < 0, NONE, originals[twins]).astype(np.int32)
    columns["group"] = encode_first(pairs.group.take(indices).to_pylist())
    return ExplorerRows(shards, indices, columns, words, keys, captions, sources)


def sample_pairs(facts: Facts, limit: int) -> Indices:
    """At most `limit` pairs, in order: those of the contents with the lowest ids, which are hashes.

    So a raw pair comes with what was synthesised from its caption.
    """
    if len(facts.pairs) <= limit:
        return np.arange(len(facts.pairs))
    order = np.lexsort((to_bytes(facts.pairs.key), to_bytes(facts.pairs.content)))
    return np.sort(order[:limit])


def locate_shards(corpus: Path, indices: Indices) -> Iterator[Shard]:
    """The shards of some pairs of the whole corpus."""
    from stylear.curate.corpus.parquet import count_table_rows

    start, first = 0, 0
    for kind in KINDS:
        for path in sorted((corpus / kind).glob("*.parquet")):
            end = start + count_table_rows(path)
            last = int(np.searchsorted(indices, end))
            if last > first:
                yield Shard(kind, path.stem, indices[first:last] - start, first)
            start, first = end, last


def read_shard_table(corpus: Path, shard: Shard, columns: list[str]) -> Any:
    """Columns of the shown rows of a shard."""
    table = read_table(corpus / shard.kind / f"{shard.unit}.parquet", columns)
    return table if len(table) == len(shard.rows) else table.take(shard.rows)


def encode_words(column: list[str | None], words: list[str]) -> NDArray[np.int32]:
    """The place of each text among the words; -1 for none."""
    codes = {word: code for code, word in enumerate(words)}
    return np.array([NONE if t is None else codes[t] for t in column], np.int32)


def encode_first(column: list[str | None]) -> NDArray[np.int32]:
    """A number for each distinct text, in the order in which they come first; -1 for none."""
    codes: dict[str, int] = {}
    return np.array(
        [NONE if text is None else codes.setdefault(text, len(codes)) for text in column], np.int32
    )


def read_scores(facts: Facts, rows: ExplorerRows) -> dict[str, NDArray[np.float32]]:
    """The scores of the shown pairs; NaN without one."""
    return {
        name: combine_chunks(column.take(rows.indices)).to_numpy(zero_copy_only=False)
        .astype(np.float32)
        for name, column in facts.scores.items()
    }  # fmt: skip
