"""Shuffling: rewrites samples into shuffled shards, in the workers of an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stylear.curate.corpus import shards
from stylear.curate.corpus.local_copies import LocalCopies
from stylear.curate.corpus.object_store import in_store
from stylear.curate.corpus.pair_reader import SampleLocations, read_samples_at
from stylear.curate.corpus.shards import ShardInfo
from stylear.curate.engine import LOCAL, Engine, cores

WORKER_BYTES = 1 << 30  # to copy per worker process; starting one for less is slower (our choice)
WORKER_CORES = 2  # kept busy by one worker, which hashes in threads


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard to write, and the locations of its samples."""

    folder: Path
    index: int
    samples: SampleLocations


def write_shards(
    folders: Mapping[Path, SampleLocations],
    shard_pairs: int,
    copies: LocalCopies,
    engine: Engine = LOCAL,
    workers: int = 0,
) -> Iterator[tuple[Path, ShardInfo]]:
    """Write the samples of each folder in shards of `shard_pairs`; yields each shard once it is written.

    This process reads through `copies`, others through their own. Raises CorpusError if a sample does not
    match its table, and StorageError as `write_shard` does.
    """
    shares = [
        (folder, index, slice(start, start + shard_pairs))
        for folder, samples in folders.items()
        for index, start in enumerate(range(0, len(samples), shard_pairs))
    ]
    plans = (ShardPlan(folder, index, folders[folder].part(part)) for folder, index, part in shares)
    count = count_workers(folders, engine, workers)
    in_process = engine.name == LOCAL.name and count == 1
    open_worker = (lambda: partial(write_planned, copies)) if in_process else open_writer
    done = engine.map_units(open_worker, plans, len(shares), count)
    for (folder, _, _), info in zip(shares, done, strict=True):
        yield folder, info


def count_workers(folders: Mapping[Path, SampleLocations], engine: Engine, workers: int) -> int:
    """How many workers are worth starting; one for an object store, so that each object is copied once."""
    if engine.name != LOCAL.name:
        return workers
    if any(map(in_store, folders)):
        return 1
    total = sum(int(samples.size.sum(dtype=int)) for samples in folders.values())
    return min(workers or max(1, cores() // WORKER_CORES), 1 + total // WORKER_BYTES)


def open_writer() -> Callable[[ShardPlan], ShardInfo]:
    """The function that another process runs on each plan."""
    return partial(write_planned, LocalCopies())


def write_planned(copies: LocalCopies, plan: ShardPlan) -> ShardInfo:
    """Write the shard of a plan."""
    rows = read_samples_at(plan.samples, copies)
    return shards.write_rows(plan.folder, plan.index, rows, md5=True)
