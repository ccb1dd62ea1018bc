"""The fetch step: sources in order, ingested by threads, committed as raw/NNNNN."""

from __future__ import annotations

import hashlib
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.console import Bar
from stylear.curate.corpus import shards
from stylear.curate.corpus.ledger import ALL, StageInputs
from stylear.curate.corpus.repair import repair_shard
from stylear.curate.corpus.storage import map_storage_errors, work_folder
from stylear.curate.fetch import ingest, read_raw
from stylear.curate.fetch.braces import expand_braces
from stylear.curate.fetch.repair import from_sources
from stylear.curate.fetch.times import untimed, write_times
from stylear.curate.recipe.base import PathNames
from stylear.curate.stage import (
    Build,
    StageResult,
    commit_stage,
    omit_keys,
    paths_in_corpus,
    split_into_chunks,
)
from stylear.errors import CorpusError, SettingsChanged, SourceError
from stylear.pair import Pair, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

STAGE = "fetch"
CODE = f"1.{ingest.VERSION}.{shards.VERSION}"
TEXTS = (".csv", ".tsv", ".txt", ".json", ".jsonl")
HOW = (  # settings of a source that change no pair
    "threads",
    "processes",
    "retries",
    "timeout_s",
    "deadline_s",
    "contact",
    "host_requests_per_s",
    "min_success",
)


def fetch_inputs(recipe: Recipe) -> StageInputs:
    """What decides the raw shards, the state of the sources left out."""
    return StageInputs(
        settings={
            "image": recipe.image.model_dump(mode="json"),
            "raw": [source_settings(source) for source in recipe.raw],
            "seed": recipe.seed,
            "mix.shard_pairs": recipe.mix.shard_pairs,
        },
        code_version=CODE,
    )


def source_settings(source: Any) -> dict[str, Any]:
    """What decides the pairs of a source, but for where it lies and how much of it is taken."""
    return omit_keys(source.map_paths(PathNames()).model_dump(mode="json"), *HOW)


def run(build: Build) -> StageResult:
    """Commit all raw shards; what is committed already is read past, not made again.

    Raises SettingsChanged when the settings or the sources changed since the first shard was
    committed, SourceError for a source that cannot be read.
    """
    ledger, folder, recipe = build.ledger, build.corpus / "raw", build.recipe
    mended = mend_raw(build)
    made = fetch_inputs(recipe)
    made = StageInputs(made.settings, made.code_version, inputs=[state_of(s) for s in recipe.raw])
    if ledger.is_current(STAGE, ALL, made) and _all_there(build, made):
        return finish(build, made, mended)
    new, count = mended, 0
    pairs = read_raw(recipe, work_folder(build.corpus), allow_empty=build.allow_empty)
    with (
        Bar("fetch", total=build.raw_pairs, unit="pairs") as bar,
        ThreadPoolExecutor(build.cores) as threads,
    ):
        for count, chunk in enumerate(split_into_chunks(pairs, recipe.mix.shard_pairs), start=1):
            unit = shards.shard_name(count - 1)
            old = ledger.entry(STAGE, unit)
            if old is not None and ledger.is_current(STAGE, unit, made):
                keys = [pair.key for pair in chunk]
                if digest(*keys) != old.note.get("keys"):
                    raise SettingsChanged(
                        f"{folder / unit}: the sources give other pairs than when it was committed",
                        hint="fetch all of it anew with "
                        "`stylear curate run RECIPE --out CORPUS --redo fetch`, or give another --out",
                    )
                bar.skip(len(keys))
                continue
            seen: list[str] = []
            times: dict[str, float] = {}
            ready = map_ahead(
                partial(ingest.ingest, settings=recipe.image),
                _noting(untimed(chunk, times), seen),
                threads,
                4 * build.cores,
            )
            info = shards.write_shard(folder, count - 1, _watched(ready, seen, bar))
            write_times(build.corpus, unit, times)
            ledger.commit(
                STAGE,
                unit,
                made,
                rows_in=info.rows,
                kept=info.kept,
                dropped=info.dropped,
                files=paths_in_corpus(build.corpus, folder, info.files),
                note={"keys": digest(*seen)},
            )
            new += 1
    if len(_shards(build)) > count:
        raise SettingsChanged(
            f"{folder}: the sources give fewer pairs than when it was fetched",
            hint="fetch all of it anew with "
            "`stylear curate run RECIPE --out CORPUS --redo fetch`, or give another --out",
        )
    result = finish(build, made, new)
    work = work_folder(build.corpus)
    with map_storage_errors(work):
        shutil.rmtree(work, ignore_errors=True)
    return result


def mend_raw(build: Build) -> int:
    """Put damaged shards right; their number. Raises CorpusError for one that can't be, and leaves it."""
    damaged = [entry for entry in _shards(build) if not build.ledger.has_intact_files(entry)]
    rest = [entry for entry in damaged if not repair_shard(build.corpus, entry)]
    try:
        if rest:
            from_sources(build, rest)
    finally:
        if rest and build.ledger.entry(STAGE, ALL) is not None:  # its downloads were done with
            shutil.rmtree(work_folder(build.corpus), ignore_errors=True)
    for entry in damaged:
        build.ledger.damaged -= set(entry.files)
    return len(damaged)


def finish(build: Build, made: StageInputs, new: int) -> StageResult:
    """Enter the whole stage in the ledger, unless it stands there with these counts.

    Raises SourceError when not a single pair was kept: an empty corpus is no success.
    """
    result = StageResult.from_entries(STAGE, _shards(build), new)
    if result.rows_in and not result.kept:
        reasons = ", ".join(f"{why} {count}" for why, count in result.dropped.items())
        raise SourceError(
            f"{build.corpus}: none of {result.rows_in} pairs can be used: {reasons}",
            hint="repair the sources, then `stylear curate run RECIPE --out CORPUS --redo fetch`",
        )
    old = build.ledger.entry(STAGE, ALL)
    if old is None or (old.kept, dict(old.dropped)) != (result.kept, dict(result.dropped)):
        commit_stage(build.ledger, STAGE, made, result)
    return result


def _shards(build: Build) -> list[Any]:
    return [entry for entry in build.ledger.entries(STAGE) if entry.unit != ALL]


def _all_there(build: Build, made: StageInputs) -> bool:
    """Whether every committed shard is still on the disk."""
    return all(build.ledger.is_current(STAGE, entry.unit, made) for entry in _shards(build))


def _noting(pairs: Iterable[Pair], keys: list[str]) -> Iterator[Pair]:
    for pair in pairs:
        keys.append(pair.key)
        yield pair


def _watched(pairs: Iterable[Pair], keys: list[str], bar: Bar) -> Iterator[Pair]:
    """Pairs in the order of `keys`, counted. Raises CorpusError when one is lost on the way."""
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
    """`function` of every pair, in order, at most `ahead` of them in memory."""
    waiting: deque[Future[Pair]] = deque()
    for pair in pairs:
        waiting.append(pool.submit(function, pair))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def state_of(source: Any) -> str:
    """A digest of what a source holds now: names and sizes of files, contents of lists and captions."""
    path = getattr(source, "path", None)
    if path is None:
        from stylear.curate.fetch.mini import CORPUS

        path = CORPUS
    total = hashlib.sha256()
    for file, name in sorted(_files(str(path))):
        text = file.suffix.lower() in TEXTS or source.type == "urls"
        content = hashlib.sha256(file.read_bytes()).hexdigest() if text else ""
        total.update(
            f"{name}\0{file.stat().st_size}\0{content}\n".encode("utf-8", "surrogateescape")
        )
    if getattr(source, "uids", None) is not None:
        total.update(hashlib.sha256(source.uids.read_bytes()).digest())
    return total.hexdigest()


def _files(pattern: str) -> Iterator[tuple[Path, str]]:
    """The files that a path or pattern names, with the names that they are known by."""
    root = Path(pattern)
    if root.is_dir():
        for file in root.rglob("*"):
            if file.is_file():
                yield file, file.relative_to(root).as_posix()
    else:
        for name in [pattern] if root.exists() else expand_braces(pattern):
            found = glob(name, recursive=True) if has_magic(name) else [name]  # noqa: PTH207
            for file in map(Path, found):
                if file.is_file():
                    yield file, file.name
