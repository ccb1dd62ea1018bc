"""Shuffling: samples copied from where they lie into shards of another order, by the workers of an engine."""

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

WORKER_BYTES = 1 << 30  # to copy, for which another process is started (ours)
WORKER_CORES = 2  # that a worker keeps busy: it hashes in threads


@dataclass(frozen=True, slots=True)
class Unit:
    """One shard to write, and where its samples lie."""

    folder: Path
    index: int
    samples: SampleLocations


def write_shuffled(
    folders: Mapping[Path, SampleLocations],
    shard_pairs: int,
    copies: LocalCopies,
    engine: Engine = LOCAL,
    workers: int = 0,
) -> Iterator[tuple[Path, ShardInfo]]:
    """Write the samples of each folder in shards of `shard_pairs`; each shard when it is written, in order.

    `copies` is what this process reads with; other processes have their own. Raises CorpusError for a
    sample that is not the one of its table, StorageError as `write_shard` does.
    """
    units = [
        (folder, index, slice(start, start + shard_pairs))
        for folder, samples in folders.items()
        for index, start in enumerate(range(0, len(samples), shard_pairs))
    ]
    work = (Unit(folder, index, folders[folder].part(part)) for folder, index, part in units)
    crew = worker_pool(folders, engine, workers)
    here = engine.name == LOCAL.name and crew == 1
    opened = (lambda: partial(write, copies)) if here else open_writer
    done = engine.map_units(opened, work, len(units), crew)
    for (folder, _, _), info in zip(units, done, strict=True):
        yield folder, info


def worker_pool(folders: Mapping[Path, SampleLocations], engine: Engine, workers: int) -> int:
    """How many workers are worth their start; of a store one, so that each object is copied once."""
    if engine.name != LOCAL.name:
        return workers
    if any(map(in_store, folders)):
        return 1
    total = sum(int(samples.size.sum(dtype=int)) for samples in folders.values())
    return min(workers or max(1, cores() // WORKER_CORES), 1 + total // WORKER_BYTES)


def open_writer() -> Callable[[Unit], ShardInfo]:
    """What another process runs on each unit."""
    return partial(write, LocalCopies())


def write(copies: LocalCopies, unit: Unit) -> ShardInfo:
    """One shard."""
    rows = read_samples_at(unit.samples, copies)
    return shards.write_rows(unit.folder, unit.index, rows, md5=True)
