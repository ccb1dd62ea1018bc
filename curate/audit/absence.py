"""Absence: checks that nothing of a forgotten pair is left in a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stylear.curate.audit.difference import Difference
from stylear.curate.corpus.answers import find_answers_about
from stylear.curate.corpus.columns import Mask, combine_chunks
from stylear.curate.corpus.layout import (
    ANSWERS,
    FETCHED,
    MIX,
    PLAN,
    TOMBSTONES,
    VERDICTS,
    ShardKind,
)
from stylear.curate.corpus.object_store import in_store
from stylear.curate.corpus.parquet import read_table, read_tables
from stylear.curate.corpus.tombstones import FORGOTTEN, MATCHED, Tombstones, is_in
from stylear.curate.explain.find import committed_tables
from stylear.curate.explain.similar import read_looks
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

BLANK = [
    "caption",
    "kept",
    "reason",
]  # columns that distinguish a forgotten row from one still to forget
SIDES = ("chosen", "rejected")


def match_tombstones(
    corpus: Path, tombstones: Tombstones, columns: list[str]
) -> Iterator[tuple[ShardKind, str, pa.Table, Mask]]:
    """(kind, unit, MATCHED and other columns, which rows match) of every committed shard."""
    looks = read_looks(corpus) if tombstones.looks else None
    for kind, unit, table in committed_tables(corpus, [*MATCHED, *columns]):
        mask = tombstones.mask(table)
        if looks is not None:
            for row, look in enumerate(next(looks)[2]):
                mask[row] = mask[row] or (look is not None and tombstones.match_look(look))
        yield kind, unit, table, mask


def check_absence(corpus: Path, tombstones: Tombstones) -> Iterator[Difference]:
    """Everything that is left of forgotten pairs."""
    expected = "nothing of a forgotten pair"
    try:
        for file, key, found in find_remains(corpus, tombstones) if tombstones else ():
            yield Difference("forgotten", file, expected, found, key)
    except CorpusError as error:
        yield Difference("unreadable", TOMBSTONES, expected, error.message)


def find_remains(corpus: Path, tombstones: Tombstones) -> Iterator[tuple[str, str, str]]:
    """(file, key, what was found) for everything that is left of forgotten pairs."""
    keys: set[str] = set()
    for kind, unit, table, matches in match_tombstones(corpus, tombstones, BLANK):
        blank = mask_blank_rows(table)
        keys |= set(table["key"].filter(blank).to_pylist())
        for key in table["key"].filter(matches & ~blank).to_pylist():
            yield f"{kind}/{unit}.parquet", key, "its row with what it says"
        yield from find_scores(corpus, kind, unit, set(table["key"].filter(blank).to_pylist()))
    for split in ("train", "val"):
        for path, table in read_tables(corpus / split, MATCHED):
            remaining = tombstones.mask(table) | is_in(table, "key", keys)
            for key in table["key"].filter(remaining).to_pylist():
                yield f"{split}/{path.name}", key, "its sample"
    for path, table in read_tables(corpus / "preferences", ["key", *SIDES]):
        remaining = is_in(table, "chosen", keys) | is_in(table, "rejected", keys)
        for key in table["key"].filter(remaining).to_pylist():
            yield f"preferences/{path.name}", key, "one of its sides"
    for name, path in ((VERDICTS, corpus / VERDICTS), (MIX, corpus / MIX)):
        if path.is_file():
            table = read_table(path, ["key", "kept", "reason"])
            judged = is_in(table, "key", keys)
            if name == VERDICTS:
                judged &= ~is_in(table, "reason", {FORGOTTEN})
            for key in table["key"].filter(judged).to_pylist():
                yield name, key, "another verdict"
    for path, table in read_tables(corpus / PLAN, ["key", "caption"]):
        named = is_in(table, "key", keys) & ~is_in(table, "caption", {""})
        for key in table["key"].filter(named).to_pylist():
            yield f"{PLAN}/{path.name}", key, "its prompt"
    for path, table in read_tables(corpus / FETCHED, ["key"]):
        for key in table["key"].filter(is_in(table, "key", keys)).to_pylist():
            yield f"{FETCHED}/{path.name}", key, "the time of its download"
    for key in [] if in_store(corpus) else find_answers_about(corpus, keys):
        yield ANSWERS, key, "an answer about it"


def find_scores(
    corpus: Path, kind: ShardKind, unit: str, keys: set[str]
) -> Iterator[tuple[str, str, str]]:
    """Scores that a shard still has of forgotten pairs."""
    for folder in sorted((corpus / "scores").glob("*")) if keys else ():
        path = folder / f"{kind}-{unit}.parquet"
        if not path.is_file():
            continue
        table = read_table(path)
        for row in table.filter(is_in(table, "key", keys)).to_pylist():
            if any(value is not None for name, value in row.items() if name != "key"):
                yield path.relative_to(corpus).as_posix(), row["key"], "a score"


def mask_blank_rows(table: pa.Table) -> Mask:
    """A mask of the rows of forgotten pairs, which have a key but no caption and no image."""
    kept = combine_chunks(table["kept"]).to_numpy(zero_copy_only=False)
    images = combine_chunks(table["image_sha256"]).is_valid().to_numpy(zero_copy_only=False)
    blank: Mask = (
        ~kept & ~images & is_in(table, "reason", {FORGOTTEN}) & is_in(table, "caption", {""})
    )
    return blank
