"""Repairing raw shards from the sources: fetches only lost pairs, and accepts only the same bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from stylear.curate.corpus import parquet
from stylear.curate.corpus.ledger import ALL, Entry
from stylear.curate.corpus.repair import SalvagedShard, is_intact, replace_shard, salvage_shard
from stylear.curate.corpus.storage import work_folder
from stylear.curate.corpus.tombstones import read_tombstones
from stylear.curate.fetch import read_raw
from stylear.curate.fetch.forgotten import ingest_unless_forgotten
from stylear.curate.fetch.growth import restore_source_order
from stylear.curate.fetch.times import strip_times
from stylear.curate.stage import Build
from stylear.errors import CorpusError, SourceError
from stylear.pair import Pair, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

STAGE = "fetch"


def repair_from_sources(build: Build, damaged: Collection[Entry]) -> None:
    """Rewrite damaged shards; their lost pairs are read from the sources again.

    Raises CorpusError naming the first pair that the sources no longer give; its shard is left unchanged.
    """
    recipe = read_leniently(restore_source_order(build.recipe, build.ledger))
    tombstones = read_tombstones(build.corpus)
    try:
        keys = find_keys(build, recipe, damaged)
        salvaged = {entry.unit: salvage_shard(build.corpus, entry) for entry in damaged}
        lost = {
            key: unit
            for unit, left in salvaged.items()
            for key in keys[unit]
            if left.pair(key) is None
        }
        fetched: dict[str, dict[str, Pair]] = {unit: {} for unit in salvaged}
        for pair in strip_times(
            read_raw(
                recipe,
                work_folder(build.corpus),
                lost.keys(),
                allow_empty=True,
                tombstones=tombstones,
            ),
            {},
        ):
            if pair.key in lost:
                unit = lost[pair.key]
                fetched[unit][pair.key] = ingest_unless_forgotten(pair, recipe.image, tombstones)
    except SourceError as error:
        raise repair_error(build, next(iter(damaged)), error.message) from error
    failed: list[CorpusError] = []
    for entry in damaged:
        left, new = salvaged[entry.unit], fetched[entry.unit]
        pairs = [left.pair(key) or new.get(key) for key in keys[entry.unit]]
        whole = [pair for pair in pairs if pair is not None]
        if len(whole) < len(pairs) or not replace_shard(build.corpus, entry, whole):
            missing = [key for key in keys[entry.unit] if left.pair(key) is None]
            failed.append(repair_error(build, entry, describe_difference(left, missing, new)))
    if failed:
        raise failed[0]


def read_leniently(recipe: Recipe) -> Recipe:
    """The recipe with `min_success: 0`: in a repair each pair counts on its own, however many fail."""
    raw = tuple(
        source.model_copy(update={"min_success": 0.0}) if source.type == "urls" else source
        for source in recipe.raw
    )
    return recipe.model_copy(update={"raw": raw})


def find_keys(build: Build, recipe: Recipe, damaged: Collection[Entry]) -> dict[str, Sequence[str]]:
    """The keys of damaged shards, in order: from their tables, or else those of the sources in no table.

    Raises CorpusError when the sources give other keys than the shard had.
    """
    tables: dict[str, Sequence[str]] = {}
    for entry in build.ledger.entries(STAGE):
        name = f"raw/{entry.unit}.parquet"
        if entry.unit != ALL and is_intact(build.corpus / name, entry.files[name]):
            table = parquet.read_table(build.corpus / name, ["key"])
            tables[entry.unit] = table["key"].to_pylist()
    unknown = [entry for entry in damaged if entry.unit not in tables]
    if unknown:
        known = {key for keys in tables.values() for key in keys}
        new_keys = (
            pair.key for pair in read_raw(recipe, None, allow_empty=True) if pair.key not in known
        )
        for entry in unknown:
            tables[entry.unit] = [
                key for key, _ in zip(new_keys, range(entry.rows_in), strict=False)
            ]
            if digest(*tables[entry.unit]) != entry.note.get("keys"):
                raise repair_error(build, entry, "its sources give other pairs now")
    return {entry.unit: tables[entry.unit] for entry in damaged}


def describe_difference(
    left: SalvagedShard, missing: Sequence[str], new: Mapping[str, Pair]
) -> str:
    """The first pair that the sources give differently or not at all, and how."""
    for key in missing:
        row, pair = left.rows.get(key), new.get(key)
        source = pair.origin.source if pair is not None else row["source"] if row else "unknown"
        reason = "no such row" if pair is None else pair.verdict.reason or "other bytes"
        if (
            pair is None
            or row is None
            or row["kept"] != pair.kept
            or not left.same_image(key, pair.image)
        ):
            return f"its source no longer gives {key} ({source}: {reason})"
    return "its sources give other bytes now"


def repair_error(build: Build, entry: Entry, why: str) -> CorpusError:
    """The error for a shard that cannot be repaired."""
    return CorpusError(
        f"{build.corpus / 'raw' / entry.unit}: damaged, and {why}",
        hint="restore its files from a backup; or fetch everything again, without the lost pairs, with"
        " `stylear curate run RECIPE --out CORPUS --redo fetch`. Nothing was changed",
    )
