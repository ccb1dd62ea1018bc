"""Which split an identity belongs to: decided by hash, so that planning and mixing agree without state."""

from __future__ import annotations

from typing import Literal

from stylear.pair import digest

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


def assign_split(identity: str, seed: int, val_fraction: float) -> Split:
    """The split of a content id or reference id; about `val_fraction` of identities are in val."""
    if val_fraction <= 0:
        return "train"
    fraction = int(digest("split", seed, identity)[:13], 16) / 16**13
    return "val" if fraction < val_fraction else "train"
