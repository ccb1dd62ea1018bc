"""Finding pairs: by key, by source, by the hash of their bytes, or by a picture."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from stylear.curate.corpus.layout import KINDS, RECIPE, ShardKind
from stylear.curate.corpus.ledger import ALL, Ledger
from stylear.curate.corpus.parquet import read_batches, read_table
from stylear.curate.corpus.tombstones import read_tombstones
from stylear.curate.explain.similar import find_similar, hash_image_file
from stylear.curate.fetch.refused import RequestRefused, plain_url
from stylear.curate.recipe import load_recipe
from stylear.curate.stage import STAGE_OF_KIND
from stylear.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX = 6  # characters of a key that can stand for it
MAX_SUGGESTIONS = 3
MAX_COMPARED = 1000  # names that are compared to find suggestions
COLUMNS = ["key", "source", "source_sha256", "image_sha256", "details"]


@dataclass(frozen=True, slots=True)
class RowLocation:
    """The location of a pair's row: `raw/00003.parquet`, row 17."""

    kind: ShardKind
    unit: str
    row: int


@dataclass(frozen=True, slots=True)
class Matches:
    """The pairs that match a text or a picture, and by what they matched."""

    by: str  # key, source, sha256, picture, similar picture, preference pair
    locations: tuple[RowLocation, ...]


def find_pairs(corpus: Path, text: str) -> Matches:
    """The pairs that match a key, the beginning of one, a URL, a sha256 or an image file.

    Raises UsageError naming the nearest matches if there is none.
    """
    file = Path(text)
    if not re.fullmatch(r"[0-9a-f]+", text) and ":" not in text and file.is_file():
        return find_picture(corpus, file)
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        matches = Matches("sha256", find_sha256(corpus, text.lower()))
    elif ":" in text:
        matches = Matches("source", find_source(corpus, text))
    else:
        matches = find_key(corpus, text)
    if not matches.locations:
        raise unknown_error(corpus, text)
    return matches


def find_key(corpus: Path, key: str) -> Matches:
    """The pair of a key or of the beginning of one, or both sides of a preference pair."""
    import pyarrow.compute as pc

    if locations := scan(corpus, lambda table: pc.equal(table["key"], key), ["key"]):
        return Matches("key", locations)
    if len(key) >= PREFIX:
        starts = scan(corpus, lambda table: pc.starts_with(table["key"], pattern=key), ["key"])
        if len(starts) == 1:
            return Matches("key", starts)
    for path in sorted((corpus / "preferences").glob("*.parquet")):
        table = read_table(path, ["key", "chosen", "rejected"])
        for row in table.filter(pc.equal(table["key"], key)).to_pylist():
            sides = [row["chosen"], row["rejected"]]
            return Matches(
                "preference pair", tuple(p for k in sides for p in find_key(corpus, k).locations)
            )
    return Matches("key", ())


def find_sha256(corpus: Path, sha256: str) -> tuple[RowLocation, ...]:
    """Pairs with these bytes at the source or in the corpus."""
    import pyarrow.compute as pc

    def has_bytes(table: pa.Table) -> Any:
        return pc.or_(
            pc.fill_null(pc.equal(table["source_sha256"], sha256), False),
            pc.fill_null(pc.equal(table["image_sha256"], sha256), False),
        )

    return scan(corpus, has_bytes, ["source_sha256", "image_sha256"])


def find_source(corpus: Path, source: str) -> tuple[RowLocation, ...]:
    """Pairs that came from a URL, also over a redirect, or from `folder:PATH`, `shard:FILE#MEMBER`, ..."""
    import pyarrow.compute as pc

    names = {source}
    with suppress(RequestRefused):
        names.add(plain_url(source))
    redirects = [f'"final_url":{json.dumps(name, ensure_ascii=False)}' for name in sorted(names)]

    def came_from(table: pa.Table) -> Any:
        matches = pc.is_in(table["source"], value_set=_strings(sorted(names)))
        for redirect in redirects:
            matches = pc.or_(matches, pc.match_substring(table["details"], redirect))
        return matches

    return scan(corpus, came_from, ["source", "details"])


def find_picture(corpus: Path, file: Path) -> Matches:
    """Pairs of the bytes of an image file; where there are none, pairs that look like it."""
    data = file.read_bytes()
    if locations := find_sha256(corpus, hashlib.sha256(data).hexdigest()):
        return Matches("picture", locations)
    look = hash_image_file(file, load_recipe(corpus / RECIPE).image)
    similar = tuple(
        RowLocation(kind, unit, int(row))
        for kind, unit, rows in find_similar(corpus, look)
        for row in rows
    )
    if not similar:
        raise UsageError(
            f"{file}: no pair of {corpus} has the same bytes or looks similar",
            hint="give the key, the URL or the sha256 of a pair",
        )
    return Matches("similar picture", similar)


def scan(
    corpus: Path, mask: Callable[[pa.Table], Any], columns: list[str]
) -> tuple[RowLocation, ...]:
    """The rows of committed shards that a mask selects, raw before stylized."""
    locations: list[RowLocation] = []
    for kind, unit, table in committed_tables(corpus, columns):
        selected = mask(table)
        if len(table):
            rows = np.flatnonzero(selected.to_numpy(zero_copy_only=False))
            locations += [RowLocation(kind, unit, int(row)) for row in rows]
    return tuple(locations)


def committed_tables(corpus: Path, columns: list[str]) -> Iterator[tuple[ShardKind, str, pa.Table]]:
    """(kind, unit, columns) of every committed shard, one in memory at a time."""
    ledger = Ledger(corpus)
    for kind in KINDS:
        for unit in ledger.units(STAGE_OF_KIND[kind]):
            if unit != ALL:
                table = read_table(corpus / kind / f"{unit}.parquet", columns)
                yield kind, unit, table.combine_chunks()


def unknown_error(corpus: Path, text: str) -> UsageError:
    """The error for a name that no pair has; it suggests similar ones."""
    import pyarrow.compute as pc

    tombstones = read_tombstones(corpus)
    if tombstones.match_source(text) or text.lower() in tombstones.bytes:
        return UsageError(
            f"{text}: was forgotten; {corpus} keeps only its hash",
            hint="such a pair keeps only its key and is dropped as `forgotten`",
        )
    column = "source" if ":" in text else "key"
    start = urlsplit(text).netloc if "://" in text else text[: 1 if column == "key" else 4]
    names: list[str] = []
    for _, _, table in committed_tables(corpus, [column]):
        names += table.filter(pc.match_substring(table[column], start))[column].to_pylist()
        if len(names) >= MAX_COMPARED:
            break
    close = difflib.get_close_matches(text, sorted(set(names)), MAX_SUGGESTIONS, 0.7)
    finished = Ledger(corpus).entry("fetch", ALL) is not None
    so_far = "" if finished else " so far: fetch is not finished"
    return UsageError(
        f"{text}: no pair of {corpus} has this key, source or sha256{so_far}",
        hint=f"did you mean {' or '.join(close)}?"
        if close
        else '`stylear curate query CORPUS "select key, source from pairs limit 5"` lists some',
    )


def read_row_at(corpus: Path, location: RowLocation) -> dict[str, Any]:
    """All columns of a pair's row."""
    from stylear.curate.corpus.records import TYPES

    path = corpus / location.kind / f"{location.unit}.parquet"
    row: dict[str, Any] = read_table(path, list(TYPES)).slice(location.row, 1).to_pylist()[0]
    return row


def select_rows(
    path: Path, column: str, values: list[str], columns: list[str] | None = None
) -> list[dict[str, Any]]:
    """The rows of a table whose `column` is one of `values`; the table is read in batches."""
    import pyarrow as pa
    import pyarrow.compute as pc

    value_set, rows = _strings(values), []
    for batch in read_batches(path, columns):
        table = pa.Table.from_batches([batch])
        rows += table.filter(pc.is_in(table[column], value_set=value_set)).to_pylist()
    return rows


def _strings(values: list[str]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string())
