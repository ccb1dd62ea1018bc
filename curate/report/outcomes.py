"""What became of each pair: the split that uses it, or the stage and the reason that dropped it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.candidates import Candidates
from stylear.curate.corpus.columns import (
    DictionaryColumn,
    Indices,
    TextIndex,
    combine_chunks,
    to_bytes,
)
from stylear.curate.corpus.layout import MIX
from stylear.curate.corpus.parquet import read_table

SPLITS = ("train", "val")
NO_REASON = "no reason"


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The outcome of each pair as a number, and each number's (stage or split, reason)."""

    codes: NDArray[np.int32]  # (N,)
    names: tuple[tuple[str, str | None], ...]

    def count(self) -> dict[tuple[str, str | None], int]:
        """The number of pairs of each outcome."""
        counts = np.bincount(self.codes, minlength=len(self.names)).tolist()
        return dict(zip(self.names, counts, strict=True))


def read_outcomes(corpus: Path, pairs: Candidates) -> Outcomes:
    """The outcomes of pairs with the verdicts of the filter. Raises CorpusError without mix.parquet."""
    table = read_table(corpus / MIX, ["key", "split", "reason"])
    codes = np.full(len(pairs), -1, np.int32)
    names: list[tuple[str, str | None]] = [(split, None) for split in SPLITS]

    def assign(
        rows: Indices, first: DictionaryColumn, second: DictionaryColumn, at: Indices
    ) -> None:
        """Give rows the outcome that two columns name at some places."""
        combined = first.codes[at].astype(np.int64) * (len(second.words) + 1) + second.codes[at]
        for value in np.unique(combined).tolist():
            has_value = combined == value
            place = at[np.argmax(has_value)]
            word, reason = first.text_at(int(place)), second.text_at(int(place))
            stage = word or "mix"
            name = (stage, None if stage in SPLITS else reason or NO_REASON)
            if name not in names:
                names.append(name)
            codes[rows[has_value]] = names.index(name)

    lost = np.flatnonzero(~pairs.kept)
    assign(lost, pairs.stage, pairs.reason, lost)
    rows = TextIndex(to_bytes(pairs.key)).find(to_bytes(combine_chunks(table["key"])))
    known = np.flatnonzero(rows >= 0)
    split, reason = (DictionaryColumn(combine_chunks(table[n])) for n in ("split", "reason"))
    assign(rows[known], split, reason, known)
    if (codes < 0).any():
        names.append(("mix", NO_REASON))
        codes[codes < 0] = len(names) - 1
    return Outcomes(codes, tuple(names))
