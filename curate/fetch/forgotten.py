"""Forgotten pairs: what matches a tombstone is not stored again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylear.curate.corpus.tombstones import Tombstones, blank_pair
from stylear.curate.fetch.ingest import ingest

if TYPE_CHECKING:
    from stylear.curate.recipe import ImageSettings
    from stylear.pair import Pair


def ingest_unless_forgotten(pair: Pair, settings: ImageSettings, tombstones: Tombstones) -> Pair:
    """The pair with its stored image, or, if it must not come back, what stays of a forgotten pair."""
    if tombstones and tombstones.match(pair):
        return blank_pair(pair)
    stored = ingest(pair, settings)
    return blank_pair(stored) if tombstones and tombstones.match_stored(stored) else stored
