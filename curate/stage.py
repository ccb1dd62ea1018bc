"""What all stages share: the build context, results, and how a cheap stage runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from stylear.console import say
from stylear.curate.corpus import parquet
from stylear.curate.corpus.layout import COLUMNS, DIVERSITY, KINDS, ShardKind
from stylear.curate.corpus.ledger import ALL, Entry, Ledger, StageInputs
from stylear.curate.corpus.storage import FileInfo, list_files, remove_path, remove_unfinished
from stylear.curate.engine import LOCAL, Engine, cores
from stylear.curate.engine.progress import Report
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import Recipe

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Build:
    """A corpus that is being built: its folder, recipe, engine and number of workers (0: one per core)."""

    corpus: Path
    recipe: Recipe
    workers: int = 0
    engine: Engine = LOCAL
    allow_empty: bool = False  # whether a source may hold nothing
    raw_pairs: int | None = None  # of all sources, if known; for the progress bar
    ledger: Ledger = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ledger", Ledger(self.corpus))

    def with_snapshot(self) -> Self:
        """The same build with a snapshot of the ledger, for inspecting a corpus before a run."""
        copy = replace(self)
        object.__setattr__(copy, "ledger", Ledger(self.corpus, snapshot=True))
        return copy

    @property
    def cores(self) -> int:
        """Number of workers for CPU work."""
        return self.workers or cores()

    def map_units(
        self,
        build: Callable[[], Callable[[T], R]],
        units: Iterable[T],
        count: int,
        *,
        gpu: bool = False,
        on_progress: Report | None = None,
    ) -> Iterator[R]:
        """The results of `build()` applied to `count` units, in order; the engine decides where they run."""
        return self.engine.map_units(
            build, units, count, self.workers, gpu=gpu, on_progress=on_progress
        )


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage did."""

    stage: str
    units: int  # committed, by this run and by earlier ones
    new: int  # committed in this run
    rows_in: int
    kept: int
    dropped: Mapping[str, int]
    warnings: tuple[str, ...] = ()  # said on stderr too

    @classmethod
    def from_entries(cls, stage: str, entries: Iterable[Entry], new: int) -> StageResult:
        """Add up the entries of a stage."""
        entries = list(entries)
        dropped: Counter[str] = Counter()
        for entry in entries:
            dropped.update(entry.dropped)
        return cls(
            stage,
            len(entries),
            new,
            sum(entry.rows_in for entry in entries),
            sum(entry.kept for entry in entries),
            dict(sorted(dropped.items())),
        )

    def row(self) -> dict[str, Any]:
        """For a table."""
        return {
            "stage": self.stage,
            "units": self.units,
            "new": self.new,
            "in": self.rows_in,
            "kept": self.kept,
            "dropped": ", ".join(f"{why} {n}" for why, n in self.dropped.items()) or None,
        }


def split_into_chunks(items: Iterator[T], size: int) -> Iterator[Iterator[T]]:
    """Chunks of `size` items, never empty; each must be consumed before the next."""
    for first in items:
        yield chain([first], islice(items, size - 1))


def make_corpus_paths(
    corpus: Path, folder: Path, files: Mapping[str, FileInfo]
) -> dict[str, FileInfo]:
    """The files of a folder by their paths inside the corpus."""
    return {(folder / name).relative_to(corpus).as_posix(): info for name, info in files.items()}


def list_file_digests(entry: Entry) -> list[str]:
    """The hashes of an entry's files, by path."""
    return [str(info["sha256"]) for _, info in sorted(entry.files.items())]


def list_committed_shards(build: Build, stage: str) -> list[Entry]:
    """The committed shards of a stage. Raises CorpusError if the stage is not finished."""
    shards = [entry for entry in build.ledger.entries(stage) if entry.unit.isdigit()]
    finished = build.ledger.entry(stage, ALL)
    if finished is None or finished.rows_in != sum(entry.rows_in for entry in shards):
        raise CorpusError(
            f"{build.corpus}: stage {stage} is not finished",
            hint=f"run `stylear curate {stage} --out {build.corpus}` first, or all stages with"
            " `stylear curate run RECIPE --out CORPUS`",
        )
    return shards


def commit_stage(
    ledger: Ledger, stage: str, stage_inputs: StageInputs, result: StageResult
) -> None:
    """Record that a stage is finished."""
    ledger.commit(
        stage,
        ALL,
        stage_inputs,
        rows_in=result.rows_in,
        kept=result.kept,
        dropped=result.dropped,
        files={},
    )


def omit_keys(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The settings without the named keys, which do not affect the result (such as concurrency)."""
    return {name: value for name, value in values.items() if name not in names}


STAGE_OF_KIND: dict[ShardKind, str] = {"raw": "fetch", "stylized": "synthesize"}


def list_pair_shards(build: Build) -> list[tuple[ShardKind, Entry]]:
    """The committed raw shards, then the stylized ones if the recipe has references."""
    kinds = KINDS if build.recipe.references else KINDS[:1]
    return [
        (kind, entry)
        for kind in kinds
        for entry in list_committed_shards(build, STAGE_OF_KIND[kind])
    ]


VERSION = 3  # raise if filter, mix or pairs give other results for the same input


Counts = tuple[int, int, Mapping[str, int]]  # rows in, kept, dropped by reason


def run_whole_corpus(
    build: Build,
    stage: str,
    settings: Mapping[str, Any],
    inputs: Iterable[str],
    outputs: Iterable[str],
    run: Callable[[], Counts],
    written: Mapping[Path, FileInfo] | None = None,
) -> StageResult:
    """Run a cheap stage unless its output has the same settings and inputs.

    `written` holds, after `run`, the files that were hashed while being written; others are read again.
    """
    ledger = build.ledger
    stage_inputs = StageInputs(settings, str(VERSION), list(inputs))
    if ledger.is_current(stage, ALL, stage_inputs):
        return StageResult.from_entries(stage, ledger.entries(stage), 0)
    ledger.remove(stage)
    for name in outputs:
        remove_path(build.corpus / name)
    rows_in, kept, dropped = run()
    remove_unfinished(build.corpus)
    files = {
        path.relative_to(build.corpus).as_posix(): (written or {}).get(path) or FileInfo.of(path)
        for name in outputs
        for path in _list_output_files(build.corpus / name)
    }
    entry = ledger.commit(
        stage, ALL, stage_inputs, rows_in=rows_in, kept=kept, dropped=dropped, files=files
    )
    say(f"{stage}: {rows_in} in, {kept} kept")
    return StageResult.from_entries(stage, [entry], 1)


def list_output_digests(build: Build, stage: str) -> list[str]:
    """The hashes of a cheap stage's output. Raises CorpusError if the stage is not finished."""
    entry = build.ledger.entry(stage, ALL)
    if entry is None:
        raise CorpusError(
            f"{build.corpus}: stage {stage} is not finished",
            hint=f"run `stylear curate {stage} --out {build.corpus}` first",
        )
    files = {name: info for name, info in entry.files.items() if name not in (COLUMNS, DIVERSITY)}
    return list_file_digests(replace(entry, files=files))


def read_verdict_counts(path: Path, stage: str) -> Counts:
    """Count a stage's input, kept pairs, and drops by reason, in a table of verdicts.

    Pairs that an earlier stage dropped are not counted again.
    """
    import pyarrow.compute as pc

    table = parquet.read_table(path, ["kept", "stage", "reason"])
    own = pc.or_(table["kept"], pc.fill_null(pc.equal(table["stage"], stage), False))
    return count_verdicts(table.filter(own))


def count_verdicts(table: pa.Table) -> Counts:
    """The same counts of a table in memory."""
    from stylear.curate.corpus.columns import DictionaryColumn, combine_chunks

    kept = combine_chunks(table["kept"]).to_numpy(zero_copy_only=False)
    reasons = combine_chunks(table["reason"]).fill_null("dropped").filter(~kept)
    return len(kept), int(kept.sum()), dict(sorted(DictionaryColumn(reasons).counts().items()))


def _list_output_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else list_files(path)
