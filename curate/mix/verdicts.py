"""The verdicts of the filter, applied to the pairs of a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stylear.curate.corpus import parquet
from stylear.curate.corpus.candidates import Candidates
from stylear.curate.corpus.columns import DictionaryColumn, TextIndex, combine_chunks, to_bytes
from stylear.curate.corpus.layout import VERDICTS
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa


def apply_verdicts(corpus: Path, pairs: Candidates) -> Candidates:
    """The pairs with the verdicts of the filter. Raises CorpusError if those are of other pairs."""

    def column(name: str) -> pa.Array:
        return combine_chunks(parquet.read_table(corpus / VERDICTS, [name])[name])

    if not column("key").equals(pairs.key):
        raise CorpusError(
            f"{corpus / VERDICTS}: expected verdicts of the corpus's pairs, found those of other pairs",
            hint=f"run `stylear curate filter --out {corpus}`, then mix and pairs",
        )
    pairs.kept = column("kept").to_numpy(zero_copy_only=False)
    pairs.stage, pairs.reason = (
        DictionaryColumn(column("stage")),
        DictionaryColumn(column("reason")),
    )
    pairs.group = column("group")
    pairs.rank = column("rank").to_numpy(zero_copy_only=False).astype(np.float64)
    twins = column("duplicate_of")
    repeats = np.flatnonzero(twins.is_valid().to_numpy(zero_copy_only=False))
    pairs.duplicate_of = np.full(len(pairs), -1)
    pairs.duplicate_of[repeats] = TextIndex(to_bytes(pairs.key)).find(to_bytes(twins.take(repeats)))
    return pairs
