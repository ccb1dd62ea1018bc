"""Opt-outs: the headers of a response that forbid using it.

`X-Robots-Tag` is read in all its forms: several headers, several directives in one, directives with a
value (`unavailable_after: <date>`, whose date may hold commas), and directives after the name of a
robot, which hold for that robot only. `tdm-reservation: 1` (TDMRep) reserves text and data mining.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime
from email.message import Message
from email.utils import parsedate_to_datetime

OPT_OUT = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})  # as in img2dataset
VALUED = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
OWN_NAMES = frozenset({"*", "stylear", "img2dataset"})  # robot names whose rules apply to us
MAX_SEEN = 200  # characters kept as evidence


def read_directives(headers: Message) -> str | None:
    """The directives of a response as evidence, joined by `; `; None without any."""
    directives = [f"x-robots-tag: {value.strip()}" for value in headers.get_all("X-Robots-Tag", [])]
    directives += [
        f"tdm-reservation: {value.strip()}" for value in headers.get_all("TDM-Reservation", [])
    ]
    return "; ".join(directives)[:MAX_SEEN] or None


def forbids_use(headers: Message, now: float | None = None) -> bool:
    """Whether the headers forbid using the response."""
    if any(value.strip() == "1" for value in headers.get_all("TDM-Reservation", [])):
        return True
    return opted_out(headers.get_all("X-Robots-Tag", []), now)


def opted_out(values: Iterable[str], now: float | None = None) -> bool:
    """Whether an X-Robots-Tag applies to us and forbids training or indexing."""
    return any(_forbids(value.lower(), time.time() if now is None else now) for value in values)


def _forbids(value: str, now: float) -> bool:
    ours = True
    for item in value.split(","):
        name, colon, argument = (part.strip() for part in item.partition(":"))
        if name in VALUED:
            if name == "unavailable_after" and ours and _is_past(_date(value), now):
                return True
            continue
        if colon and name.isascii() and " " not in name and not name[:1].isdigit():
            ours = name in OWN_NAMES  # a robot's name: what follows is for it
            name = argument
            if name.partition(":")[0].strip() in VALUED:
                if ours and _is_past(_date(value), now):
                    return True
                continue
        if ours and name in OPT_OUT:
            return True
    return False


def _date(value: str) -> str:
    """The date of `unavailable_after:`, up to the next directive."""
    return value.partition("unavailable_after:")[2]


def _is_past(text: str, now: float) -> bool:
    """Whether a date (RFC 822, RFC 850 or ISO 8601, perhaps with more text) is past; False without one."""
    parts = text.split(",")
    for count in (1, 2):  # "sat, 25 jun 2010 15:00:00 gmt" has a comma
        date = ",".join(parts[:count]).strip()
        for read in (parsedate_to_datetime, datetime.fromisoformat):
            try:
                return read(date).timestamp() < now
            except (ValueError, TypeError, OverflowError, IndexError):
                continue
    return False
