"""Forgotten pairs: rows of a source that match a tombstone are neither downloaded nor stored again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from stylear.curate.corpus.tombstones import Tombstones, blank_pair
from stylear.curate.fetch.ingest import ingest

if TYPE_CHECKING:
    from stylear.curate.fetch.urls import PlannedRow
    from stylear.curate.recipe import ImageSettings
    from stylear.pair import Pair


def ingest_unless_forgotten(pair: Pair, settings: ImageSettings, tombstones: Tombstones) -> Pair:
    """The pair with its stored image, or, if it must not come back, what stays of a forgotten pair."""
    if tombstones and tombstones.match(pair):
        return blank_pair(pair)
    stored = ingest(pair, settings)
    return blank_pair(stored) if tombstones and tombstones.match_stored(stored) else stored


def skip_forgotten(plans: Iterable[PlannedRow], tombstones: Tombstones) -> Iterator[PlannedRow]:
    """The same rows; those that match a tombstone have no URL to download."""
    for plan in plans:
        yield replace(plan, url=None) if tombstones.match(plan.pair) else plan
