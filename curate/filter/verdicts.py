"""Verdicts: the decisions of the rules as a table and as counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stylear.curate.corpus.candidates import Candidates
from stylear.curate.corpus.columns import valid_mask
from stylear.curate.filter.rows import Rows, to_float64

if TYPE_CHECKING:
    import pyarrow as pa

STAGE = "filter"


def make_verdict_table(pairs: Candidates, rows: Rows) -> pa.Table:
    """One row per pair: key, kept, stage, reason, group, duplicate_of, rank and the scores."""
    import pyarrow as pa

    stage = pairs.stage
    stage.set(pairs.kept & ~rows.kept, STAGE)
    columns: dict[str, Any] = {
        "key": pairs.key,
        "kept": pa.array(rows.kept),
        "stage": stage.array(),
        "reason": rows.reason.array(),
        "group": pairs.group,
        "duplicate_of": pairs.key.take(pa.array(rows.duplicate_of, mask=rows.duplicate_of < 0)),
        "rank": pa.array(pairs.rank.astype(np.float32), mask=np.isnan(pairs.rank)),
    }
    for name, column in rows.scores.items():
        values = to_float64(column).astype(np.float32)
        columns[f"score.{name}"] = pa.array(values, mask=~valid_mask(column))
    return pa.table(columns)


def count_funnel(rows: Rows) -> list[dict[str, Any]]:
    """The numbers of raw and stylized pairs kept, and dropped by reason, one row each."""
    # the last: dropped without a reason, by another program
    words = [*rows.reason.words, "dropped"]
    codes = np.where(rows.reason.codes < 0, len(words), rows.reason.codes + 1)
    codes[rows.kept] = 0
    counts = np.bincount(codes + rows.stylized * (len(words) + 1), minlength=2 * (len(words) + 1))
    raw, stylized = counts.reshape(2, -1).tolist()
    funnel = []
    for index, verdict in [(0, "kept"), *sorted(enumerate(words, 1), key=lambda word: word[1])]:
        pairs = raw[index] + stylized[index]
        if pairs or not index:
            counted = {"raw": raw[index], "stylized": stylized[index], "pairs": pairs}
            funnel.append({"verdict": verdict, **counted})
    return funnel
