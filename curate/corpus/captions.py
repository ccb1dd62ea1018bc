"""Untrusted captions, cleaned for storage and training."""

from __future__ import annotations

import re
import unicodedata

from stylear.pair import Scalar

MAX_CAPTION = (
    1000  # characters kept (our choice; 1000 characters are some 250 tokens of a Chameleon prompt)
)
MAX_READ = 8 * MAX_CAPTION  # characters looked at: normalising a megabyte of accents takes minutes
MAX_DETAIL = 200  # characters of a detail
MAX_DETAILS = 32  # extra columns kept

# Bidirectional overrides and isolates reorder what a reader sees; joiners and marks stay: words need them.
REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]")
UNPRINTABLE = ("Cc", "Cs", "Co", "Cn")


def clean_text(text: str, limit: int) -> str:
    """Normalise a text to NFC on one line, without control characters, of at most `limit` characters."""
    text = " ".join(text[: 8 * limit].split())
    text = REORDERING.sub("", unicodedata.normalize("NFC", text))
    if not text.isascii() or not text.isprintable():
        text = "".join(c for c in text if unicodedata.category(c) not in UNPRINTABLE)
    return " ".join(text.split())[:limit].rstrip()


def clean_caption(raw: object) -> tuple[str, dict[str, Scalar]]:
    """Clean a caption and record in details what was changed; empty if there is no text.

    Whatever is not a string (a missing value, a number) counts as no caption. A caption longer than
    1000 characters is cut and `caption_characters` records how long it was.
    """
    if not isinstance(raw, str):
        return "", {}
    caption = clean_text(raw, MAX_CAPTION)
    whole = len(raw) <= MAX_READ and len(" ".join(raw.split())) <= MAX_CAPTION
    return caption, {} if whole else {"caption_characters": len(raw)}


def clean_details(columns: dict[str, object]) -> dict[str, Scalar]:
    """Turn further columns of a row into details: scalars only, lower-case names, truncated texts."""
    details: dict[str, Scalar] = {}
    for name, value in columns.items():
        name = re.sub(r"[^a-z0-9]+", "_", str(name).lower()[:60]).strip("_")
        if isinstance(value, str):
            value = clean_text(value, MAX_DETAIL)
        elif not isinstance(value, bool | int | float) or not abs(value) < 2**63:  # NaN neither
            continue
        if name and value != "" and len(details) < MAX_DETAILS:
            details[name] = value
    return details


def plain_source(text: str) -> str:
    """Escape a path or URL so that any file format can hold it; undecodable bytes become escapes."""
    printable = text.encode("utf-8", "backslashreplace").decode("utf-8")[:4096]
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in printable)
