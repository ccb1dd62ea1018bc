"""Metadata that only the publisher of a corpus can declare: licence, creator, URL, date."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from urllib.parse import urlsplit

from stylear.curate.corpus.captions import clean_text
from stylear.errors import UsageError

MAX_CREATOR = 200  # characters
LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")


@dataclass(frozen=True, slots=True)
class Declared:
    """Metadata declared by the publisher of a corpus; None for what was not declared.

    Raises UsageError for a licence that is neither an SPDX identifier nor a URL, for a URL that is not
    http or https, and for an invalid date.
    """

    licence: str | None = None  # of the corpus as a whole: SPDX identifier or URL
    creator: str | None = None
    url: str | None = None
    published: str | None = None  # YYYY-MM-DD

    def __post_init__(self) -> None:
        if self.licence is not None and not LICENCE.fullmatch(self.licence):
            require_url("--license", self.licence, "an SPDX identifier such as CC-BY-4.0, or a URL")
        if self.url is not None:
            require_url("--url", self.url, "a URL that starts with https:// or http://")
        if self.creator is not None and clean_text(self.creator, MAX_CREATOR) != self.creator:
            raise UsageError(
                f"--creator: expected one line of at most {MAX_CREATOR} characters, found"
                f" {self.creator[:50]!r}"
            )
        if self.published is not None:
            require_date(self.published)

    def unset_options(self) -> list[str]:
        """The command line options of everything that was not declared."""
        options = {
            "--license": self.licence,
            "--creator": self.creator,
            "--url": self.url,
            "--published": self.published,
        }
        return [option for option, value in options.items() if value is None]


def require_url(option: str, text: str, expected: str) -> None:
    """Raise UsageError unless a text is an http or https URL."""
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url or not re.fullmatch(r"[!-~]+", text):
        raise UsageError(f"{option}: expected {expected}, found {text!r}")


def require_date(text: str) -> None:
    """Raise UsageError unless a text is YYYY-MM-DD."""
    try:
        is_date = date.fromisoformat(text).isoformat() == text
    except ValueError:
        is_date = False
    if not is_date:
        raise UsageError(f"--published: expected a date such as 2026-01-31, found {text!r}")
