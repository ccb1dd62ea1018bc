"""Human: the candidates that reviewers prefer in `stylear curate review --ask prefer`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stylear.curate.corpus.answers import list_preferences, read_answers
from stylear.curate.corpus.candidates import Candidates
from stylear.curate.corpus.columns import NONE, Indices, Mask, TextIndex, hash_identities, to_bytes
from stylear.curate.filter.human import DROPPED


def find_human_pairs(corpus: Path, pairs: Candidates, in_train: Mask) -> tuple[Indices, Indices]:
    """The preferred and the other candidate of each couple on which most reviewers agree.

    Both are of one group that has a pair in train, so that nothing of val is learnt. The preferred one need
    not be in train itself: another candidate may have been the best by its scores. A pair that
    reviewers dropped is never preferred.
    """
    preferences = list_preferences(read_answers(corpus))
    if not preferences:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    index = TextIndex(to_bytes(pairs.key))
    best, worst = (
        index.find(np.array([couple[side].encode() for couple in preferences])) for side in (0, 1)
    )
    known = (best >= 0) & (worst >= 0)
    best, worst = best[known], worst[known]
    group, has_group = hash_identities(pairs.group), pairs.has("group")
    train_groups = group[in_train & has_group]
    reasons = pairs.reason.array().take(best).to_pylist()
    dropped = np.array([reason == DROPPED for reason in reasons], bool)
    usable = (
        has_group[best]
        & (group[best] == group[worst])
        & np.isin(group[best], train_groups)
        & (pairs.image[best] != NONE)
        & (pairs.image[worst] != NONE)
        & (pairs.image[best] != pairs.image[worst])
        & ~dropped
    )
    return best[usable], worst[usable]


def leave_out_groups(pairs: Candidates, indices: Indices, judged: Indices) -> Mask:
    """Which of some indices are of no group that people have judged."""
    group = hash_identities(pairs.group)
    unjudged: Mask = ~np.isin(group[indices], group[judged])
    return unjudged
