"""Preference pairs: the chosen side is in train, and both sides are candidates of one group.

Where people chose, there are no scores, and another candidate of the group may be the one in train.
"""

from __future__ import annotations

from collections.abc import Iterator

from stylear.curate.audit.difference import Difference
from stylear.curate.audit.tables import PREFERENCES, Tables
from stylear.curate.corpus.columns import TextIndex, to_bytes, to_objects

FOLDER = "preferences"


def check_preferences(tables: Tables) -> Iterator[Difference]:
    """Preference pairs with a chosen side outside train, sides of two groups, or no higher score."""
    table, groups = tables.preferences, tables.verdicts["group"]
    train, verdicts = TextIndex(tables.splits["train"]["key"]), TextIndex(tables.verdicts["key"])
    in_train = train.find(to_bytes(table["chosen"])) >= 0
    indices = verdicts.find(tables.splits["train"]["key"])
    train_groups = (
        set(to_objects(groups.take(indices[indices >= 0]))) if len(table["key"]) else set()
    )
    sides = [verdicts.find(to_bytes(table[side])) for side in ("chosen", "rejected")]
    for number, columns in enumerate(
        zip(*(to_objects(table[name]) for name in PREFERENCES), strict=True)
    ):
        row = dict(zip(PREFERENCES, columns, strict=True))
        key = str(row["key"])
        chosen, rejected = (
            groups[int(side[number])].as_py() if side[number] >= 0 else None for side in sides
        )
        is_human = row["margin"] is None
        if not (in_train[number] or (is_human and chosen in train_groups)):
            yield Difference("split", FOLDER, "a chosen pair of train", f"{row['chosen']}", key)
        if chosen is None or chosen != rejected:
            yield Difference(
                "lineage", FOLDER, "candidates of one group", f"{chosen} and {rejected}", key
            )
        scores = (row["chosen_score"], row["rejected_score"])
        if not is_human and (None in scores or not scores[0] > scores[1]):
            yield Difference(
                "verdict", FOLDER, "a higher chosen score", f"a margin of {row['margin']}", key
            )
