"""Tombstones: hashes of forgotten pairs, which keep them from being fetched again.

`tombstones.json` holds hashes only: keys (digests of where a pair came from), SHA-256 of sources, of domains
and of image bytes, and perceptual hashes. A pair that matches one is stored without caption, source, details
and image, dropped with the reason `forgotten`. Its key stays, so that every row is still accounted for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from stylear.curate.corpus.columns import Mask, combine_chunks, to_objects
from stylear.curate.corpus.layout import TOMBSTONES
from stylear.curate.corpus.looks import Look
from stylear.errors import CorpusError
from stylear.pair import Origin, Pair, Verdict, content_id

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "stylear-tombstones-1"
FORGOTTEN = "forgotten"  # the reason, and the source that a forgotten raw pair has
REMOVED = "removed"  # note of the mix in the ledger: samples that were forgotten, by split and kind
REDIRECT = "final_url"  # the detail that says where a download was redirected to
MATCHED = ["key", "source", "details", "source_sha256", "image_sha256"]
Strings = frozenset[str]


@dataclass(frozen=True, slots=True)
class Tombstones:
    """The hashes of everything that must not be fetched again."""

    keys: Strings = frozenset()
    sources: Strings = frozenset()  # SHA-256 of URLs and other sources
    domains: Strings = frozenset()  # SHA-256 of names such as example.org, including subdomains
    bytes: Strings = frozenset()  # SHA-256 of images, original or stored
    looks: frozenset[tuple[Look, int]] = frozenset()  # with the max Hamming distance of a match
    manifests: Strings = frozenset()  # SHA-256 of the manifests of the corpus before it forgot

    def __bool__(self) -> bool:
        return any((self.keys, self.sources, self.domains, self.bytes, self.looks))

    def __or__(self, other: Tombstones) -> Tombstones:
        return Tombstones(*(getattr(self, f.name) | getattr(other, f.name) for f in fields(self)))

    def match(self, pair: Pair) -> bool:
        """Whether a pair matches, by what is known of it before or after its download."""
        origin = pair.origin
        redirect = origin.details.get(REDIRECT)
        sources = [origin.source, *([redirect] if isinstance(redirect, str) else [])]
        return (
            pair.key in self.keys
            or any(self.match_source(source) for source in sources)
            or origin.source_sha256 in self.bytes
            or bool(self.bytes and pair.image and hash_value(pair.image) in self.bytes)
        )

    def match_source(self, source: str) -> bool:
        """Whether a URL or another source, or its domain, matches."""
        if self.sources and hash_value(source) in self.sources:
            return True
        return bool(self.domains) and any(
            hash_value(name) in self.domains for name in list_domains(source)
        )

    def match_look(self, look: Look) -> bool:
        """Whether a picture is a near duplicate of a forgotten one."""
        return any(look.is_near(other, distance) for other, distance in self.looks)

    def match_stored(self, pair: Pair) -> bool:
        """Whether a pair with its stored image matches, near duplicates included."""
        return self.match(pair) or bool(
            self.looks and pair.image and self.match_look(Look.of_image(pair.image))
        )

    def mask(self, table: pa.Table) -> Mask:
        """A mask of the matching rows of a shard's table (columns MATCHED); near duplicates are not found."""
        import pyarrow.compute as pc

        matches = np.zeros(len(table), bool)
        for column, forgotten in (
            ("key", self.keys),
            ("source_sha256", self.bytes),
            ("image_sha256", self.bytes),
        ):
            if forgotten:
                matches |= is_in(table, column, forgotten)
        if self.sources or self.domains:
            for row, source in enumerate(table["source"].to_pylist()):
                matches[row] = matches[row] or self.match_source(source)
            redirected = pc.match_substring(table["details"], f'"{REDIRECT}":')
            moved = np.flatnonzero(combine_chunks(redirected).to_numpy(zero_copy_only=False))
            for row in moved.tolist():
                source = json.loads(table["details"][row].as_py()).get(REDIRECT)
                matches[row] = matches[row] or (
                    isinstance(source, str) and self.match_source(source)
                )
        return matches

    def text(self) -> str:
        """The content of tombstones.json."""
        values: dict[str, Any] = {"format": FORMAT}
        for name in ("keys", "sources", "domains", "bytes", "manifests"):
            values[name] = sorted(getattr(self, name))
        values["looks"] = [[look.phash, look.colour, bits] for look, bits in sorted(self.looks)]
        return json.dumps(values, indent=1) + "\n"


NONE = Tombstones()


def read_tombstones(corpus: Path) -> Tombstones:
    """The tombstones of a corpus; none where nothing was forgotten. Raises CorpusError for a damaged file."""
    path = corpus / TOMBSTONES
    if not path.is_file():
        return NONE
    try:
        values = json.loads(path.read_text("utf-8"))
        if values.pop("format") != FORMAT:
            raise ValueError("another format")
        looks = frozenset(
            (Look(phash, colour), bits) for phash, colour, bits in values.pop("looks")
        )
        return Tombstones(
            looks=looks, **{name: frozenset(column) for name, column in values.items()}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(
            f"{path}: expected tombstones, found: {error}",
            hint="restore the file from a backup: without it forgotten pairs would come back",
        ) from error


def blank_pair(pair: Pair) -> Pair:
    """What remains of a forgotten pair: its key; for a stylized one also its parent and reference."""
    origin = pair.origin
    raw = origin.kind == "raw"
    blank = Origin(
        kind=origin.kind,
        source=FORGOTTEN if raw else origin.source,
        content=content_id(""),
        parent=origin.parent,
        reference=origin.reference,
        reference_sha256=origin.reference_sha256,
    )
    return Pair(
        pair.key,
        "",
        b"",
        blank,
        verdict=Verdict(False, "fetch" if raw else "synthesize", FORGOTTEN),
    )


def is_in(table: pa.Table, name: str, values: Collection[str]) -> Mask:
    """A mask of the rows with one of these texts in a column."""
    column = combine_chunks(table[name])
    return np.fromiter((text in values for text in to_objects(column)), bool, len(column))


def hash_value(value: str | bytes) -> str:
    """SHA-256 of a text or of bytes, as tombstones hold it."""
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return hashlib.sha256(data).hexdigest()


def list_domains(source: str) -> Iterator[str]:
    """The host of a URL and the domains above it: a.b.example.org, b.example.org, example.org, org."""
    if not source.startswith(("http://", "https://")):
        return
    try:
        name = urlsplit(source).hostname or ""
    except ValueError:
        return
    while name:
        yield name
        name = name.partition(".")[2]


def hash_all(values: Iterable[str]) -> Strings:
    """The hashes of several texts."""
    return frozenset(map(hash_value, values))
