"""Fates: what became of every pair of a corpus, as columns of a few bytes a pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.candidates import style_of
from stylear.curate.corpus.columns import (
    Ids,
    Index,
    Mask,
    combine_chunks,
    concatenate,
    hash_identities,
)
from stylear.curate.corpus.layout import MIX, VERDICTS, ShardKind, score_path
from stylear.curate.corpus.ledger import ALL, Ledger
from stylear.curate.corpus.parquet import read_batches, read_table
from stylear.curate.explain.find import committed_tables
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ["key", "reference", "kept", "stage", "reason"]
ABSENT = "absent"
KEPT_SO_FAR = "kept so far"
TRAINED = ("train", "val")
Codes = NDArray[np.int16]  # (N,) places in a list of words


class Words:
    """A growing list of words, each with a number."""

    def __init__(self, *words: str) -> None:
        self.words = list(words)
        self._codes = {word: code for code, word in enumerate(words)}

    def code(self, word: str) -> int:
        """The number of a word, a new one if need be."""
        if word not in self._codes:
            self._codes[word] = len(self.words)
            self.words.append(word)
        return self._codes[word]


@dataclass(slots=True, eq=False)
class Fates:
    """Of every pair: its identity, where it ended and in which style, in the order of the shards."""

    corpus: Path
    ids: Ids  # (N,) 16 bytes of a hash of the key
    fate: Codes  # (N,) places in the words that both corpora share
    style: Codes  # (N,) places in the styles that both share; 0: raw
    stylized: Mask

    def __len__(self) -> int:
        return len(self.ids)


def read_fates(corpus: Path, fates: Words, styles: Words) -> Fates:
    """What became of every committed pair; of an unfinished corpus, what has so far.

    `fates` and `styles` number the words. Raises CorpusError when the verdicts are of other pairs.
    """
    ledger = Ledger(corpus)

    def parts() -> Iterator[dict[str, Any]]:
        none = np.zeros(0, np.int16)
        yield {"ids": np.zeros(0, "S16"), "fate": none, "style": none}
        for kind, _, table in committed_tables(corpus, COLUMNS):
            yield {
                "ids": hash_identities(combine_chunks(table["key"])),
                "fate": encode_fates(table, fates),
                "style": encode_styles(table, kind, styles),
            }

    found = concatenate(parts())
    fate: Codes = found["fate"]
    if ledger.entry("filter", ALL) is not None:
        fate = read_verdicts(corpus, found["ids"], fates)
    if ledger.entry("mix", ALL) is not None:
        apply_mix(corpus, found["ids"], fate, fates)
    return Fates(corpus, found["ids"], fate, found["style"], found["style"] > 0)


def encode_fates(table: pa.Table, fates: Words) -> Codes:
    """What the verdict of each row says, as a number."""
    kept, stage, reason = (
        combine_chunks(table[name]).dictionary_encode() for name in ("kept", "stage", "reason")
    )
    numbers = np.stack(
        [
            part.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            for part in (kept, stage, reason)
        ]
    )
    words = [part.dictionary.to_pylist() for part in (kept, stage, reason)]
    unique, inverse = np.unique(numbers, axis=1, return_inverse=True)
    codes = []
    for is_kept, at, why in unique.T.tolist():
        if words[0][is_kept]:
            codes.append(fates.code(KEPT_SO_FAR))
        else:
            place, name = (w[n] if n >= 0 else None for w, n in ((words[1], at), (words[2], why)))
            codes.append(fates.code(f"{place or 'dropped'}: {name or 'dropped'}"))
    found: Codes = np.array(codes, np.int16)[inverse.ravel()]
    return found


def encode_styles(table: pa.Table, kind: ShardKind, styles: Words) -> Codes:
    """The style of each row, as a number; 0 for raw pairs."""
    if kind == "raw":
        return np.zeros(len(table), np.int16)
    encoded = combine_chunks(table["reference"]).fill_null("?").dictionary_encode()
    codes = [styles.code(style_of(name)) for name in encoded.dictionary.to_pylist()]
    found: Codes = np.array(codes, np.int16)[encoded.indices.to_numpy()]
    return found


def read_verdicts(corpus: Path, ids: Ids, fates: Words) -> Codes:
    """The fates that the filter decided. Raises CorpusError when it judged other pairs."""
    import pyarrow as pa

    found, start = np.zeros(len(ids), np.int16), 0
    for batch in read_batches(corpus / VERDICTS, ["key", "kept", "stage", "reason"]):
        table = pa.Table.from_batches([batch])
        end = start + len(table)
        if not np.array_equal(hash_identities(combine_chunks(table["key"])), ids[start:end]):
            raise stale_error(corpus)
        found[start:end] = encode_fates(table, fates)
        start = end
    if start != len(ids):
        raise stale_error(corpus)
    return found


def stale_error(corpus: Path) -> CorpusError:
    return CorpusError(
        f"{corpus / VERDICTS}: it judges other pairs than the corpus has",
        hint="run `stylear curate filter` on this corpus again",
    )


def apply_mix(corpus: Path, ids: Ids, fate: Codes, fates: Words) -> None:
    """Put into `fate` the split of each mixed pair, or why the mix left it out."""
    table = read_table(corpus / MIX, ["key", "split", "reason"])
    places = Index(ids).find(hash_identities(combine_chunks(table["key"])))
    ends = [
        fates.code(split or f"mix: {reason}")
        for split, reason in zip(
            table["split"].to_pylist(), table["reason"].to_pylist(), strict=True
        )
    ]
    there = places >= 0
    fate[places[there]] = np.array(ends, np.int16)[there]


def read_score(corpus: Path, name: str) -> NDArray[np.float32] | None:
    """One score of every committed pair, in the order of the fates; NaN without one; None: no numbers."""
    import pyarrow as pa

    scored = set(Ledger(corpus).units(f"score.{name}"))
    parts: list[NDArray[np.float32]] = []
    for kind, unit, table in committed_tables(corpus, ["key"]):
        values = np.full(len(table), np.nan, np.float32)
        if f"{kind}-{unit}" in scored:
            path = score_path(corpus, name, kind, int(unit))
            column = combine_chunks(read_table(path, [name])[name])
            if not pa.types.is_floating(column.type):
                return None
            if len(column) == len(values):
                values = column.to_numpy(zero_copy_only=False).astype(np.float32)
        parts.append(values)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def read_keys(corpus: Path, wanted: Mask) -> Iterator[str]:
    """The keys of some pairs, in the order of the fates, one shard in memory at a time."""
    start = 0
    for _, _, table in committed_tables(corpus, ["key"]):
        end = start + len(table)
        if wanted[start:end].any():
            yield from (
                combine_chunks(table["key"]).take(np.flatnonzero(wanted[start:end])).to_pylist()
            )
        start = end
