"""The fetch stage: ingest the rows of the sources by threads and commit them as raw/NNNNN."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from stylear.console import Bar, say
from stylear.curate.corpus import shards
from stylear.curate.corpus.layout import MANIFEST
from stylear.curate.corpus.ledger import ALL, Entry, Ledger, StageInputs
from stylear.curate.corpus.repair import repair_shard
from stylear.curate.corpus.storage import map_storage_errors, work_folder
from stylear.curate.corpus.tombstones import read_tombstones
from stylear.curate.fetch import ingest, read_raw
from stylear.curate.fetch.forgotten import ingest_unless_forgotten
from stylear.curate.fetch.growth import (
    CommittedRows,
    NewKeys,
    finished_shards,
    is_growth_of_sources,
    restore_source_order,
    source_settings,
)
from stylear.curate.fetch.repair import repair_from_sources
from stylear.curate.fetch.source_state import FileHashes, hash_source
from stylear.curate.fetch.times import strip_times, write_times
from stylear.curate.stage import (
    Build,
    StageResult,
    commit_stage,
    make_corpus_paths,
    split_into_chunks,
)
from stylear.errors import CorpusError, SourceError
from stylear.pair import Pair, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

STAGE = "fetch"
CODE = f"1.{ingest.VERSION}.{shards.VERSION}"


def fetch_inputs(recipe: Recipe, ledger: Ledger) -> StageInputs:
    """The inputs of the raw shards, without the contents of the sources."""
    return StageInputs(
        settings={
            "image": recipe.image.model_dump(mode="json"),
            "raw": [
                source_settings(s, recipe.base) for s in restore_source_order(recipe, ledger).raw
            ],
            "seed": recipe.seed,
            "mix.shard_pairs": recipe.mix.shard_pairs,
        },
        code_version=CODE,
        growable={"raw": is_growth_of_sources},
    )


def hash_inputs(build: Build) -> StageInputs:
    """The inputs of the raw shards, with a hash of the present contents of each source.

    Raises SourceError for a source that is missing.
    """
    inputs = fetch_inputs(build.recipe, build.ledger)
    hashes = FileHashes(build.corpus, build.recipe.base)
    recipe = restore_source_order(build.recipe, build.ledger)
    hashed = [hash_source(source, hashes, build.cores) for source in recipe.raw]
    hashes.save()
    return replace(inputs, inputs=hashed)


def run(build: Build) -> StageResult:
    """Commit all raw shards: existing rows keep their shards, new ones are appended.

    Raises SettingsChanged when fetched rows are missing from the sources or have changed, and SourceError
    for a source that cannot be read; nothing has been written then.
    """
    repaired = repair_raw(build)
    inputs = hash_inputs(build)
    finished = build.ledger.entry(STAGE, ALL)
    if finished is not None and finished.fingerprint == inputs.fingerprint:
        return finish(build, inputs, repaired)
    result = finish(build, inputs, repaired + append_new_rows(build, inputs))
    work = work_folder(build.corpus)
    with map_storage_errors(work):
        shutil.rmtree(work, ignore_errors=True)
    return result


def append_new_rows(build: Build, inputs: StageInputs) -> int:
    """Commit the rows that the corpus lacks as new shards, and return their number.

    Rows that existed when fetch last finished are not downloaded again. Later shards are those of a killed
    run: its rows are planned into the same blocks again, so that their downloads are reused.
    """
    recipe, entries = restore_source_order(build.recipe, build.ledger), raw_shards(build)
    rows = CommittedRows(build.corpus, entries)
    finished = finished_shards(entries, build.ledger.entry(STAGE, ALL))
    if entries:
        new = rows.require_unchanged(recipe, allow_empty=build.allow_empty)
        say(f"fetch: {len(rows)} rows already fetched, {new} new")
        if not new:
            return 0
        (build.corpus / MANIFEST).unlink(missing_ok=True)
    only = NewKeys(CommittedRows(build.corpus, finished)) if finished else None
    pairs = (
        pair
        for pair in read_raw(
            recipe,
            work_folder(build.corpus),
            only,
            allow_empty=build.allow_empty,
            tombstones=read_tombstones(build.corpus),
        )
        if pair.key not in rows
    )
    count = 0
    with (
        Bar("fetch", total=build.raw_pairs, unit="pairs") as bar,
        ThreadPoolExecutor(build.cores) as threads,
    ):
        bar.skip(len(rows))
        for chunk in split_into_chunks(pairs, recipe.mix.shard_pairs):
            commit_shard(build, inputs, len(entries) + count, chunk, threads, bar)
            count += 1
    return count


def commit_shard(
    build: Build,
    inputs: StageInputs,
    index: int,
    pairs: Iterable[Pair],
    threads: ThreadPoolExecutor,
    bar: Bar,
) -> None:
    """Ingest pairs and commit them as one raw shard."""
    unit, folder = shards.shard_name(index), build.corpus / "raw"
    keys: list[str] = []
    times: dict[str, float] = {}
    ready = map_ahead(
        partial(
            ingest_unless_forgotten,
            settings=build.recipe.image,
            tombstones=read_tombstones(build.corpus),
        ),
        collect_keys(strip_times(pairs, times), keys),
        threads,
        4 * build.cores,
    )
    info = shards.write_shard(folder, index, require_order(ready, keys, bar))
    write_times(build.corpus, unit, times)
    build.ledger.commit(
        STAGE,
        unit,
        inputs,
        rows_in=info.rows,
        kept=info.kept,
        dropped=info.dropped,
        files=make_corpus_paths(build.corpus, folder, info.files),
        note={"keys": digest(*keys)},
    )


def repair_raw(build: Build) -> int:
    """Repair damaged shards and return their number. Raises CorpusError for one that cannot be repaired."""
    damaged = [entry for entry in raw_shards(build) if not build.ledger.has_intact_files(entry)]
    unrepaired = [entry for entry in damaged if not repair_shard(build.corpus, entry)]
    try:
        if unrepaired:
            repair_from_sources(build, unrepaired)
    finally:
        # no run will reuse the downloads
        if unrepaired and build.ledger.entry(STAGE, ALL) is not None:
            shutil.rmtree(work_folder(build.corpus), ignore_errors=True)
    for entry in damaged:
        build.ledger.damaged -= set(entry.files)
    return len(damaged)


def finish(build: Build, inputs: StageInputs, new: int) -> StageResult:
    """Record the finished stage in the ledger, unless it is there with these inputs and counts.

    Raises SourceError when not a single pair was kept: an empty corpus is not a success.
    """
    result = StageResult.from_entries(STAGE, raw_shards(build), new)
    if result.rows_in and not result.kept:
        reasons = ", ".join(f"{why} {count}" for why, count in result.dropped.items())
        raise SourceError(
            f"{build.corpus}: none of {result.rows_in} pairs can be used: {reasons}",
            hint="fix the sources, then `stylear curate run RECIPE --out CORPUS --redo fetch`",
        )
    old = build.ledger.entry(STAGE, ALL)
    counts = result.kept, dict(result.dropped)
    if old is None or old.fingerprint != inputs.fingerprint or (old.kept, old.dropped) != counts:
        commit_stage(build.ledger, STAGE, inputs, result)
    return result


def raw_shards(build: Build) -> list[Entry]:
    """The committed raw shards, also those of an unfinished run."""
    return [entry for entry in build.ledger.entries(STAGE) if entry.unit != ALL]


def collect_keys(pairs: Iterable[Pair], keys: list[str]) -> Iterator[Pair]:
    """Pass the pairs on and append their keys to `keys`."""
    for pair in pairs:
        keys.append(pair.key)
        yield pair


def require_order(pairs: Iterable[Pair], keys: list[str], bar: Bar) -> Iterator[Pair]:
    """Check that pairs come in the order of `keys`, and count them. Raises CorpusError if one is lost."""
    count = 0
    for count, pair in enumerate(pairs, start=1):
        if pair.key != keys[count - 1]:
            raise CorpusError(f"fetch: expected {keys[count - 1]} next, found {pair.key}")
        bar.advance()
        yield pair
    if count != len(keys):
        raise CorpusError(f"fetch: {keys[count]} went in and did not come out")


def map_ahead(
    function: Callable[[Pair], Pair], pairs: Iterable[Pair], pool: ThreadPoolExecutor, ahead: int
) -> Iterator[Pair]:
    """Apply `function` to every pair in a pool, in order, with at most `ahead` pairs in memory."""
    waiting: deque[Future[Pair]] = deque()
    for pair in pairs:
        waiting.append(pool.submit(function, pair))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
