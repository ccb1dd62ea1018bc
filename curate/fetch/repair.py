"""Mending raw shards from the sources: only what is lost is fetched, and only the same bytes are taken."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from stylear.curate.corpus.ledger import Entry
from stylear.curate.corpus.repair import SalvagedShard, replace_shard, salvage_shard
from stylear.curate.corpus.storage import work_folder
from stylear.curate.fetch import ingest, read_raw
from stylear.curate.fetch.times import untimed
from stylear.curate.stage import Build, split_into_chunks
from stylear.errors import CorpusError, SourceError
from stylear.pair import Pair, digest


def from_sources(build: Build, entries: Collection[Entry]) -> None:
    """Write damaged shards again, what is lost of them read anew from the sources.

    Raises CorpusError naming the first pair that can't be had again; its shard stays as it is.
    """
    damaged = {int(entry.unit): entry for entry in entries}
    try:
        keys = {
            index: [pair.key for pair in pairs] for index, pairs in _units(build, damaged, only=())
        }
        for index, entry in damaged.items():
            if digest(*keys.get(index, ())) != entry.note.get("keys"):
                raise _lost(build, entry, "its sources give other pairs now")
        remains = {index: salvage_shard(build.corpus, entry) for index, entry in damaged.items()}
        lost = {k for i, left in remains.items() for k in keys[i] if left.pair(k) is None}
        failed: list[CorpusError] = []
        for index, pairs in _units(build, damaged, only=lost):
            missing: dict[str, Pair] = {}
            found = _filled(build, pairs, remains[index], missing)
            if not replace_shard(build.corpus, damaged[index], found):
                failed.append(_lost(build, damaged[index], _told(remains[index], missing)))
    except SourceError as error:
        raise _lost(build, next(iter(entries)), error.message) from error
    if failed:
        raise failed[0]


def _units(
    build: Build, wanted: Mapping[int, Entry], only: Collection[str]
) -> Iterator[tuple[int, Iterator[Pair]]]:
    """The pairs of some shards, in order, as the sources give them; only some of them downloaded."""
    pairs = untimed(read_raw(build.recipe, work_folder(build.corpus), only, allow_empty=True), {})
    for index, chunk in enumerate(split_into_chunks(pairs, build.recipe.mix.shard_pairs)):
        if index in wanted:
            yield index, chunk
        for _ in chunk:
            pass
        if index >= max(wanted):
            return


def _filled(
    build: Build, pairs: Iterator[Pair], remains: SalvagedShard, missing: dict[str, Pair]
) -> Iterator[Pair]:
    """What is left of each pair, or else what its source gives; the latter are noted in `missing`."""
    for pair in pairs:
        kept = remains.pair(pair.key)
        if kept is None:
            kept = missing[pair.key] = ingest.ingest(pair, build.recipe.image)
        yield kept


def _told(remains: SalvagedShard, missing: Mapping[str, Pair]) -> str:
    """Which pair does not come back as it was, and why."""
    for key, pair in missing.items():
        row = remains.rows.get(key)
        came = pair.verdict.reason or "other bytes"
        if row is None or row["kept"] != pair.kept or not remains.same_image(key, pair.image):
            return f"its source no longer gives {key} ({pair.origin.source}: {came})"
    return "its sources give other bytes now"


def _lost(build: Build, entry: Entry, why: str) -> CorpusError:
    return CorpusError(
        f"{build.corpus / 'raw' / entry.unit}: damaged, and {why}",
        hint="put its files back from a copy; or fetch everything anew, without what is lost, with"
        " `stylear curate run RECIPE --out CORPUS --redo fetch`. Nothing was changed",
    )
