"""Human: drop the pairs that reviewers dropped in `stylear curate review`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stylear.curate.corpus.answers import Votes
from stylear.curate.corpus.columns import TextIndex, to_bytes
from stylear.curate.filter.rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import HumanRule

DROPPED, UNREVIEWED = "human-dropped", "human-unreviewed"
REASONS = (DROPPED, UNREVIEWED)


def read_votes(rows: Rows, keys: pa.StringArray, votes: Mapping[str, Votes]) -> None:
    """Note in the rows how many reviewers keep and drop each pair. Votes on unknown pairs are ignored."""
    rows.votes_keep, rows.votes_drop = (np.zeros(len(rows), np.int32) for _ in range(2))
    if not votes:
        return
    indices = TextIndex(to_bytes(keys)).find(np.array([key.encode() for key in votes]))
    for index, vote in zip(indices.tolist(), votes.values(), strict=True):
        if index >= 0:
            rows.votes_keep[index], rows.votes_drop[index] = vote.keep, vote.drop


def apply_human(rows: Rows, rule: HumanRule) -> None:
    """Drop pairs that enough reviewers drop, and where the rule requires a review, those without one."""
    keep, drop = rows.votes_keep, rows.votes_drop
    rows.drop((drop >= rule.at_least) & (drop > rule.share * (keep + drop)), DROPPED)
    if rule.require:
        rows.drop(keep + drop < rule.at_least, UNREVIEWED)
