"""Blocks of downloads on the disk: reading them back, and the rejection reasons of failed downloads."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylear.curate.fetch.worker import IMAGES, ROWS
from stylear.pair import Scalar

FETCHED_AT = "_fetched_at"  # a detail that fetch removes again, as it differs in every run
EVIDENCE = {  # field of the guard's evidence -> detail of the pair
    "final_url": "final_url",
    "status": "http_status",
    "content_type": "content_type",
    "directives": "opt_out_headers",
    "fetched_at": FETCHED_AT,
}

# Error messages of urllib and img2dataset -> rejection reasons; the first match wins.
REASONS = (
    (r"X-Robots-Tag", "opted-out"),
    (r"HTTP Error 30\d", "too-many-redirects"),
    (r"timed out|TimeoutError", "timeout"),
    (r"Connection refused", "connection-refused"),
    (r"reset by peer|without response|IncompleteRead|Broken pipe|EOF occurred", "connection-lost"),
    (r"CERTIFICATE|SSL|TLS", "tls-failed"),
    (r"unreachable|No route", "unreachable"),
    (r"Name or service|name resolution|getaddrinfo", "unknown-host"),
)


def classify_error(error: str | None) -> str:
    """The kebab-case reason for an error message of img2dataset."""
    text = error or ""
    if refused := re.search(r"refused\[([a-z-]+)\]", text):
        return refused[1]
    for pattern, reason in REASONS:
        if re.search(pattern, text):
            return reason
    status = re.search(r"HTTP Error (\d{3})", text)
    return f"http-{status[1]}" if status else "download-failed"


@dataclass(frozen=True, slots=True)
class Download:
    """The outcome of one URL: its bytes or the reason why there are none, and the server's evidence."""

    data: bytes
    reason: str | None = None
    sha256: str | None = None  # of the data
    evidence: Mapping[str, Scalar] = field(default_factory=dict)


class Damaged(Exception):
    """A block on the disk is damaged."""


class Block:
    """Reads one finished block of downloads. Raises Damaged if its files are not intact."""

    def __init__(self, directory: Path) -> None:
        try:
            self.rows = json.loads((directory / ROWS).read_text("utf-8"))
            self._images = (directory / IMAGES).open("rb")
        except (OSError, ValueError) as error:
            raise Damaged(str(error)) from error

    def __enter__(self) -> Block:
        return self

    def __exit__(self, *_: object) -> None:
        self._images.close()

    def read(self, row: int) -> Download:
        """The download of the URL in this row."""
        try:
            entry = self.rows[row]
            evidence = read_evidence(entry)
            if entry["error"] is not None:
                return Download(b"", classify_error(entry["error"]), None, evidence)
            self._images.seek(entry["start"])
            data = self._images.read(entry["bytes"])
            sha256 = entry["sha256"]
        except (KeyError, IndexError, TypeError) as error:
            raise Damaged(f"row {row}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Damaged(f"the bytes of row {row} differ from their hash")
        return Download(data, None, sha256, evidence)


def read_evidence(entry: Mapping[str, Any]) -> dict[str, Scalar]:
    """What the guard recorded about a download, as details of the pair."""
    return {name: entry[key] for key, name in EVIDENCE.items() if entry.get(key) is not None}
