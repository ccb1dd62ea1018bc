"""Licences: the words in which a source states the licence of a raw pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LICENCE_COLUMNS = (
    "licence",
    "license",
    "license_name",
    "licence_name",
    "license_url",
    "licence_url",
)
OPT_OUTS = ("opted-out", "robots-disallowed", "robots-unreadable")  # reasons of the fetch


def find_licence(details: Mapping[str, Any]) -> str | None:
    """The licence that a source gave a pair, in its own words."""
    stated = (details.get(name) for name in LICENCE_COLUMNS)
    return next((licence for licence in stated if isinstance(licence, str) and licence), None)
