"""Steps: each runs one stage over a corpus, shard by shard, and keeps the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from curate.engine import LOCAL, Engine, cores
from curate.ledger import ALL, Entry, Ledger, Made
from curate.storage import FileInfo
from stylear.errors import CorpusError

if TYPE_CHECKING:
    from curate.recipe import Recipe

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Build:
    """A corpus in the making: where, of what recipe, by how many workers (0: one a core) of what engine."""

    corpus: Path
    recipe: Recipe
    workers: int = 0
    engine: Engine = LOCAL
    ledger: Ledger = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ledger", Ledger(self.corpus))

    @property
    def cores(self) -> int:
        """Workers for work that a CPU does."""
        return self.workers or cores()

    def map_units(
        self,
        build: Callable[[], Callable[[T], R]],
        units: Iterable[T],
        count: int,
        *,
        gpu: bool = False,
    ) -> Iterator[R]:
        """What `build()` gave on each of `count` units, in order, wherever the engine runs it."""
        return self.engine.map_units(build, units, count, self.workers, gpu=gpu)


@dataclass(frozen=True, slots=True)
class Result:
    """What one step did."""

    stage: str
    units: int  # committed, old and new
    made: int  # in this run
    rows_in: int
    kept: int
    dropped: Mapping[str, int]

    @classmethod
    def of(cls, stage: str, entries: Iterable[Entry], made: int) -> Result:
        """The sum of a stage's entries."""
        entries = list(entries)
        dropped: Counter[str] = Counter()
        for entry in entries:
            dropped.update(entry.dropped)
        return cls(
            stage,
            len(entries),
            made,
            sum(entry.rows_in for entry in entries),
            sum(entry.kept for entry in entries),
            dict(sorted(dropped.items())),
        )

    def row(self) -> dict[str, Any]:
        """For a table."""
        return {
            "stage": self.stage,
            "units": self.units,
            "made now": self.made,
            "in": self.rows_in,
            "kept": self.kept,
            "dropped": ", ".join(f"{why} {n}" for why, n in self.dropped.items()) or None,
        }


def chunks(items: Iterator[T], size: int) -> Iterator[Iterator[T]]:
    """Runs of `size` items, each to be used up before the next; no empty one."""
    for first in items:
        yield chain([first], islice(items, size - 1))


def inside(corpus: Path, folder: Path, files: Mapping[str, FileInfo]) -> dict[str, FileInfo]:
    """Files of one folder, by their path inside the corpus."""
    return {(folder / name).relative_to(corpus).as_posix(): info for name, info in files.items()}


def digests(entry: Entry) -> list[str]:
    """The hashes of an entry's files, by path."""
    return [str(info["sha256"]) for _, info in sorted(entry.files.items())]


def shards_of(build: Build, stage: str) -> list[Entry]:
    """The committed shards of a stage, which must be complete. Raises CorpusError when it is not."""
    found = [entry for entry in build.ledger.entries(stage) if entry.unit.isdigit()]
    if not found or build.ledger.entry(stage, "all") is None:
        raise CorpusError(
            f"{build.corpus}: stage {stage} is not finished",
            hint=f"run `stylear curate {stage}` or `stylear curate run` on this corpus first",
        )
    return found


def enter(ledger: Ledger, stage: str, made: Made, result: Result) -> None:
    """Record that all shards of a stage are there."""
    ledger.commit(
        stage,
        ALL,
        made,
        rows_in=result.rows_in,
        kept=result.kept,
        dropped=result.dropped,
        files={},
    )


def without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Settings without those that change no result (how fast, how often, who asks)."""
    return {name: value for name, value in values.items() if name not in names}
