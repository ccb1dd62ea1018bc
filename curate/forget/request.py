"""Requests: what to forget, and the tombstones that match it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylear.curate.corpus.captions import plain_source
from stylear.curate.corpus.looks import DISTANCE
from stylear.curate.corpus.tombstones import Tombstones, hash_all
from stylear.curate.explain.similar import hash_image_file
from stylear.curate.fetch.refused import RequestRefused, plain_url
from stylear.errors import UsageError

if TYPE_CHECKING:
    from stylear.curate.recipe import ImageSettings

KEY = re.compile(r"[0-9a-f]{32}")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
DOMAIN = re.compile(r"(?!-)[a-z0-9-]+(\.[a-z0-9-]+)+")


@dataclass(frozen=True, slots=True)
class Request:
    """The pairs to forget, as given on the command line."""

    keys: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    pictures: tuple[Path, ...] = ()
    distance: int = DISTANCE

    def __bool__(self) -> bool:
        return any((self.keys, self.sources, self.sha256, self.domains, self.pictures))

    def tombstones(self, image: ImageSettings) -> Tombstones:
        """The tombstones of the request; `image` has the settings with which the corpus stores pictures.

        Raises UsageError for an invalid key, hash or domain, SourceError for a file that is not an image.
        """
        return Tombstones(
            keys=frozenset(check_all(self.keys, KEY, "--key", "a key of 32 hex digits")),
            sources=hash_all(name for source in self.sources for name in spellings(source)),
            domains=hash_all(
                check_all(
                    [plain_domain(d) for d in self.domains],
                    DOMAIN,
                    "--domain",
                    "a domain such as example.org",
                )
            ),
            bytes=frozenset(
                text.lower() for text in check_all(self.sha256, SHA256, "--sha256", "64 hex digits")
            ),
            looks=frozenset(
                (hash_image_file(file, image), self.distance) for file in self.pictures
            ),
        )


def spellings(source: str) -> set[str]:
    """A URL as given, as fetch requests it and as it is stored."""
    names = {source, plain_source(source)}
    with suppress(RequestRefused):
        names.add(plain_source(plain_url(source)))
    return names


def plain_domain(text: str) -> str:
    """A domain in lower case and IDNA."""
    name = text.strip().lower().rstrip(".")
    with suppress(UnicodeError):
        name = name if name.isascii() else name.encode("idna").decode("ascii")
    return name


def check_all(values: Iterable[str], pattern: re.Pattern[str], option: str, what: str) -> list[str]:
    """The values. Raises UsageError for one that does not match the option's pattern."""
    checked = list(values)
    for value in checked:
        if not pattern.fullmatch(value):
            raise UsageError(f"{option} {value}: expected {what}")
    return checked


def read_request_list(file: Path) -> Request:
    """A list with a key, a sha256, a URL or another source on each line; `#` begins a comment line.

    Raises UsageError for a line that is none of these.
    """
    keys, sources, sha256 = [], [], []
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--list {file}: expected a text file, found: {error}") from error
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if KEY.fullmatch(text):
            keys.append(text)
        elif SHA256.fullmatch(text):
            sha256.append(text)
        elif ":" in text:
            sources.append(text)
        else:
            raise UsageError(
                f"--list {file}:{number}: expected a key, a sha256 or a URL, found {text[:60]!r}"
            )
    return Request(tuple(keys), tuple(sources), tuple(sha256))
