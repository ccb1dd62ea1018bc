"""Preference pairs: the chosen side is in train, and both sides are candidates of one group.

Where people chose, there are no scores, and another candidate of the group may be the one in train.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stylear.curate.audit.difference import Difference
from stylear.curate.audit.pairs import Placement
from stylear.curate.audit.tables import (
    PREFERENCE_TYPES,
    PREFERENCES,
    PairIndex,
    list_tables,
    look_up,
    read_file,
)
from stylear.curate.corpus.columns import Mask
from stylear.curate.corpus.layout import VERDICTS
from stylear.curate.corpus.split import SPLITS

SIDES = ("chosen", "rejected")


def check_preferences(corpus: Path, pairs: PairIndex, placement: Placement) -> Iterator[Difference]:
    """Preference pairs with a chosen side outside train, sides of two groups, or no higher score."""
    tables = list_tables(corpus / PREFERENCES)
    is_side, is_any_human = np.zeros(len(pairs), bool), False
    for path in tables:
        for table in read_file(path, PREFERENCE_TYPES):
            for side in SIDES:
                indices = pairs.find(table[side])
                is_side[indices[indices >= 0]] = True
            is_any_human = is_any_human or table["margin"].null_count > 0
    in_train = placement.split == SPLITS.index("train")
    groups = read_groups(corpus, pairs, is_side)
    train_groups = (
        set(read_groups(corpus, pairs, in_train).values()) if is_any_human else set[str | None]()
    )
    for path in tables:
        for table in read_file(path, PREFERENCE_TYPES):
            sides = [pairs.find(table[side]) for side in SIDES]
            trained = placement.is_in("train", sides[0]).tolist()
            for number, row in enumerate(table.to_pylist()):
                chosen, rejected = (groups.get(int(side[number])) for side in sides)
                is_human = row["margin"] is None
                is_trained = trained[number] or (is_human and chosen in train_groups)
                file = f"{PREFERENCES}/{path.name}"
                yield from check_row(row, file, chosen, rejected, is_trained=is_trained)


def check_row(
    row: dict[str, Any], file: str, chosen: str | None, rejected: str | None, *, is_trained: bool
) -> Iterator[Difference]:
    """Differences of one preference pair, whose sides are candidates of two groups."""
    key, scores = str(row["key"]), (row["chosen_score"], row["rejected_score"])
    if not is_trained:
        yield Difference("split", file, "a chosen pair of train", f"{row['chosen']}", key)
    if chosen is None or chosen != rejected:
        found = f"{chosen} and {rejected}"
        yield Difference("lineage", file, "candidates of one group", found, key)
    if row["margin"] is not None and (None in scores or not scores[0] > scores[1]):
        found = f"a margin of {row['margin']}"
        yield Difference("verdict", file, "a higher chosen score", found, key)


def read_groups(corpus: Path, pairs: PairIndex, is_side: Mask) -> dict[int, str | None]:
    """The candidate group of some pairs, by index."""
    groups: dict[int, str | None] = {}
    for table in read_file(corpus / VERDICTS, {"key": "string", "group": "string?"}):
        indices = pairs.find(table["key"])
        is_read = (indices >= 0) & look_up(is_side, indices)
        names = table["group"].filter(is_read).to_pylist()
        groups |= dict(zip(indices[is_read].tolist(), names, strict=True))
    return groups
