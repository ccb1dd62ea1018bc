"""Outcomes: where each pair of a corpus ended (train, val, dropped and why), in a few bytes per pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.audit.keys import KeyIndex, encode_keys
from stylear.curate.corpus.candidates import parse_style
from stylear.curate.corpus.columns import (
    Ids,
    Mask,
    combine_chunks,
    concatenate,
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
Codes = NDArray[np.int16]  # (N,) codes of a Vocabulary


class Vocabulary:
    """A growing list of words; the code of a word is its index."""

    def __init__(self, *words: str) -> None:
        self.words = list(words)
        self._codes = {word: code for code, word in enumerate(words)}

    def encode(self, word: str) -> int:
        """The code of a word, which is added if it is new."""
        if word not in self._codes:
            self._codes[word] = len(self.words)
            self.words.append(word)
        return self._codes[word]


@dataclass(slots=True, eq=False)
class Outcomes:
    """The identity, outcome and style of every pair, in the order of the shards."""

    corpus: Path
    ids: Ids  # (N,) 16 bytes of each key
    outcome: Codes  # (N,) codes of the vocabulary that both corpora share
    style: Codes  # (N,) codes of the styles that both share; 0: raw
    stylized: Mask

    def __len__(self) -> int:
        return len(self.ids)


def read_outcomes(corpus: Path, outcomes: Vocabulary, styles: Vocabulary) -> Outcomes:
    """The outcome of every committed pair; in an unfinished corpus, the one so far.

    New words are added to `outcomes` and `styles`. Raises CorpusError if the verdicts are of other pairs.
    """
    ledger = Ledger(corpus)

    def parts() -> Iterator[dict[str, Any]]:
        none = np.zeros(0, np.int16)
        yield {"ids": np.zeros(0, "S16"), "outcome": none, "style": none}
        for kind, _, table in committed_tables(corpus, COLUMNS):
            yield {
                "ids": encode_keys(table["key"]),
                "outcome": encode_outcomes(table, outcomes),
                "style": encode_styles(table, kind, styles),
            }

    columns = concatenate(parts())
    outcome: Codes = columns["outcome"]
    if ledger.entry("filter", ALL) is not None:
        outcome = read_verdicts(corpus, columns["ids"], outcomes)
    if ledger.entry("mix", ALL) is not None:
        apply_mix(corpus, columns["ids"], outcome, outcomes)
    return Outcomes(corpus, columns["ids"], outcome, columns["style"], columns["style"] > 0)


def encode_outcomes(table: pa.Table, outcomes: Vocabulary) -> Codes:
    """The codes of the rows' verdicts."""
    kept, stage, reason = (
        combine_chunks(table[name]).dictionary_encode() for name in ("kept", "stage", "reason")
    )
    words = [[*part.dictionary.to_pylist(), None] for part in (kept, stage, reason)]
    shape = tuple(map(len, words))
    numbers = np.ravel_multi_index(
        tuple(
            part.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)
            for part, known in zip((kept, stage, reason), words, strict=True)
        ),
        shape,
    )
    codes = np.zeros(np.prod(shape), np.int16)
    for number in np.flatnonzero(np.bincount(numbers, minlength=len(codes))).tolist():
        is_kept, *dropped_by = (
            known[n] for known, n in zip(words, np.unravel_index(number, shape), strict=True)
        )
        reason_words = ": ".join(word or "dropped" for word in dropped_by)
        codes[number] = outcomes.encode(KEPT_SO_FAR if is_kept else reason_words)
    row_codes: Codes = codes[numbers]
    return row_codes


def encode_styles(table: pa.Table, kind: ShardKind, styles: Vocabulary) -> Codes:
    """The code of each row's style; 0 for raw pairs."""
    if kind == "raw":
        return np.zeros(len(table), np.int16)
    encoded = combine_chunks(table["reference"]).fill_null("?").dictionary_encode()
    codes = [styles.encode(parse_style(name)) for name in encoded.dictionary.to_pylist()]
    row_codes: Codes = np.array(codes, np.int16)[encoded.indices.to_numpy()]
    return row_codes


def read_verdicts(corpus: Path, ids: Ids, outcomes: Vocabulary) -> Codes:
    """The outcomes that the filter decided. Raises CorpusError if its verdicts are of other pairs."""
    import pyarrow as pa

    codes, start = np.zeros(len(ids), np.int16), 0
    for batch in read_batches(corpus / VERDICTS, ["key", "kept", "stage", "reason"]):
        table = pa.Table.from_batches([batch])
        end = start + len(table)
        if not np.array_equal(encode_keys(table["key"]), ids[start:end]):
            raise stale_error(corpus)
        codes[start:end] = encode_outcomes(table, outcomes)
        start = end
    if start != len(ids):
        raise stale_error(corpus)
    return codes


def stale_error(corpus: Path) -> CorpusError:
    return CorpusError(
        f"{corpus / VERDICTS}: expected verdicts of the corpus's pairs, found those of other pairs",
        hint="run `stylear curate filter` on this corpus again",
    )


def apply_mix(corpus: Path, ids: Ids, outcome: Codes, outcomes: Vocabulary) -> None:
    """Set the outcome of each pair in the mix: its split, or the reason why it was left out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    index = KeyIndex(ids)
    for batch in read_batches(corpus / MIX, ["key", "split", "reason"]):
        table = pa.Table.from_batches([batch])
        reasons = pc.binary_join_element_wise("mix: ", pc.fill_null(table["reason"], "None"), "")
        ends = combine_chunks(pc.coalesce(table["split"], reasons)).dictionary_encode()
        codes = np.array([outcomes.encode(word) for word in ends.dictionary.to_pylist()], np.int16)
        indices = index.find(encode_keys(table["key"]))
        is_present = indices >= 0
        outcome[indices[is_present]] = codes[ends.indices.to_numpy()][is_present]


def read_score(corpus: Path, name: str) -> NDArray[np.float32] | None:
    """One score of every committed pair, in the order of the outcomes; NaN without one; None: no numbers."""
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


def read_keys(corpus: Path, mask: Mask) -> Iterator[str]:
    """The keys of some pairs, in the order of the outcomes, one shard in memory at a time."""
    start = 0
    for _, _, table in committed_tables(corpus, ["key"]):
        end = start + len(table)
        if mask[start:end].any():
            yield from (
                combine_chunks(table["key"]).take(np.flatnonzero(mask[start:end])).to_pylist()
            )
        start = end
