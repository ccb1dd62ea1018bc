"""The score stage: every scorer scores every raw and stylized shard, committed as scores/<scorer>/.

A shard is read once for all scorers that lack it; each scorer's table has its own ledger entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.console import Bar, say
from stylear.curate.corpus import parquet, shards
from stylear.curate.corpus.layout import ShardKind, score_path
from stylear.curate.corpus.ledger import Entry, StageInputs
from stylear.curate.corpus.storage import FileInfo
from stylear.curate.engine import LOCAL
from stylear.curate.engine.progress import WorkProgress
from stylear.curate.references import StyleReference, load_references, missing_reference_error
from stylear.curate.score.passes import (
    STAGE,
    ledger_stage,
    list_passes,
    list_scorers,
    make_score_inputs,
    needs_whole_corpus,
)
from stylear.curate.stage import Build, StageResult, list_file_digests, list_pair_shards

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.score.scorer import Scorer

GPU_RUN_PAIRS = 16_000  # pairs per unit on a GPU, so that the GPU never waits for I/O (our choice)
LEDGER_NOTES = ("captions_truncated", "batch_size_after_oom")  # copied from a table's metadata


@dataclass(frozen=True, slots=True)
class ShardWork:
    """One shard, and the scorers that have not scored it."""

    kind: ShardKind
    tar: Path
    rows: int
    missing: tuple[tuple[Any, Path, StageInputs], ...]  # settings, table, its inputs

    @property
    def unit(self) -> str:
        return f"{self.kind}-{self.tar.stem}"


Unit = tuple[ShardWork, ...]  # consecutive shards
Written = dict[
    str, tuple[FileInfo, dict[str, Any]]
]  # by scorer: its file, and notes for the ledger


def run(build: Build) -> StageResult:
    """Commit the columns of every scorer for every shard.

    Raises SettingsChanged for columns of other settings or weights, CorpusError if fetch or
    synthesize is not finished.
    """
    from stylear.curate.engine.gpus import visible_gpus
    from stylear.curate.score.device import count_loader_threads

    ledger, corpus = build.ledger, build.corpus
    references = load_references(build.recipe)
    specs = list_passes(build.recipe)
    works = plan_work(build, specs, references)
    if build.engine.name == LOCAL.name:  # on a cluster the workers' machines decide
        require_devices(works)
    gpu = uses_gpu(specs)
    at_once = 1
    if gpu:  # at least two units per GPU, so that none is idle
        gpus = build.workers or len(visible_gpus()) or 1
        at_once = min(GPU_RUN_PAIRS, sum(work.rows for work in works) // (2 * gpus))
    units = list(group_shards(works, at_once))
    total = sum(work.rows for work in works)
    with Bar("score", total=total, unit="images") as bar:
        progress = WorkProgress(bar, total)
        opened = partial(open_worker, references, corpus, count_loader_threads(gpu=gpu))
        results = build.map_units(opened, units, len(units), gpu=gpu, on_progress=progress.report)
        for unit, written in zip(units, results, strict=True):
            for work, files in zip(unit, written, strict=True):
                for spec, out, inputs in work.missing:
                    info, note = files[spec.name]
                    ledger.commit(
                        ledger_stage(spec),
                        work.unit,
                        inputs,
                        rows_in=work.rows,
                        kept=work.rows,
                        dropped={},
                        files={out.relative_to(corpus).as_posix(): info},
                        note=note,
                    )
                progress.finish(work.rows, work.unit)
    tables = sum(len(work.missing) for work in works) + score_second_phase(build, references)
    specs += filter(needs_whole_corpus, list_scorers(build.recipe))
    shard_names = [f"{kind}-{entry.unit}" for kind, entry in list_pair_shards(build)]
    entries = [ledger.entry(ledger_stage(spec), unit) for spec in specs for unit in shard_names]
    committed = [entry for entry in entries if entry is not None]
    warn_truncated_captions(committed)
    return StageResult.from_entries(STAGE, committed, tables)


def score_second_phase(build: Build, references: Sequence[StyleReference]) -> int:
    """Run the second phase; returns the number of columns written."""
    from stylear.curate.score import compute_scorer_fingerprint

    written = 0
    for spec in filter(needs_whole_corpus, list_scorers(build.recipe)):
        from stylear.curate.score.nearest_step import score_nearest

        written += score_nearest(build, spec, compute_scorer_fingerprint(spec), references)
    return written


def plan_work(
    build: Build, specs: Sequence[Any], references: Sequence[StyleReference]
) -> list[ShardWork]:
    """The shards that some scorer has not scored.

    Raises SettingsChanged for columns of other settings or weights.
    """
    from stylear.curate.score import compute_scorer_fingerprint
    from stylear.curate.score.device import resolve_device
    from stylear.curate.score.open import find_scorer_class

    known = {reference.id: reference for reference in references}
    ready = [(resolve_device(spec), compute_scorer_fingerprint(spec)) for spec in specs]
    works = []
    for kind, entry in list_pair_shards(build):
        missing = []
        used = find_references(build.corpus, entry, known) if kind == "stylized" else []
        for spec, fingerprint in ready:
            scorer = find_scorer_class(spec.type)
            styles = [scorer.reference_fingerprint(spec, reference) for reference in used]
            digests = [*list_file_digests(entry), *styles]
            inputs = make_score_inputs(spec, fingerprint, digests)
            if not build.ledger.is_current(ledger_stage(spec), f"{kind}-{entry.unit}", inputs):
                out = score_path(build.corpus, spec.name, kind, int(entry.unit))
                missing.append((spec, out, inputs))
        if missing:
            tar = build.corpus / kind / f"{entry.unit}.tar"
            works.append(ShardWork(kind, tar, entry.rows_in, tuple(missing)))
    return works


def find_references(
    corpus: Path, entry: Entry, known: Mapping[str, StyleReference]
) -> list[StyleReference]:
    """The style references of a stylized shard, by id. Raises CorpusError for one that the recipe lacks."""
    path = corpus / "stylized" / f"{entry.unit}.parquet"
    names = parquet.read_table(path, ["reference"])["reference"].unique().to_pylist()
    for name in names:
        if name not in known:
            raise missing_reference_error(str(path), name)
    return [known[name] for name in sorted(names)]


def group_shards(works: Sequence[ShardWork], pairs: int) -> Iterator[Unit]:
    """Group shards into units of at least `pairs` pairs, which one worker scores without waiting."""
    unit: list[ShardWork] = []
    for work in works:
        unit.append(work)
        if sum(shard.rows for shard in unit) >= pairs:
            yield tuple(unit)
            unit = []
    if unit:
        yield tuple(unit)


def warn_truncated_captions(entries: Sequence[Entry]) -> None:
    """Say how many captions were longer than their text encoder's context."""
    truncated: dict[str, int] = {}
    for entry in entries:
        if count := entry.note.get("captions_truncated"):
            name = entry.stage.partition(".")[2]
            truncated[name] = truncated.get(name, 0) + count
    for name, count in truncated.items():
        say(
            f"{name}: {count} captions are longer than the model's context; see column {name}.truncated"
        )


def require_devices(works: Sequence[ShardWork]) -> None:
    """Raise UsageError before any work if a scorer needs a device that this machine does not have."""
    from stylear.curate.score.device import resolve_device
    from stylear.device import pick_device

    devices = {
        getattr(resolve_device(spec), "device", "cpu") for w in works for spec, *_ in w.missing
    }
    for device in sorted(devices):
        pick_device(device, "score.device")


def uses_gpu(specs: Sequence[Any]) -> bool:
    """Whether a scorer uses a GPU; the work then runs in one process per GPU."""
    from stylear.curate.score.device import resolve_device

    return any(getattr(resolve_device(spec), "device", "cpu") != "cpu" for spec in specs)


def open_worker(
    references: Sequence[StyleReference], corpus: Path, threads: int
) -> Callable[[Unit], list[Written]]:
    """The function that a worker runs on each unit; each scorer is opened once, on first use."""
    from stylear.curate.score import open_scorer
    from stylear.curate.score.scorer import Context
    from stylear.curate.score.sweep import ShardToScore, score_shards

    context = Context(references, corpus)
    opened: dict[str, Scorer] = {}

    def scorer(spec: Any) -> Scorer:
        if spec.name not in opened:
            opened[spec.name] = open_scorer(spec, context)
        return opened[spec.name]

    def run(unit: Unit) -> list[Written]:
        def finish(number: int, tables: dict[str, pa.Table]) -> Written:
            return {
                spec.name: (
                    parquet.write_table(out, tables[spec.name]),
                    select_ledger_notes(tables[spec.name]),
                )
                for spec, out, _ in unit[number].missing
            }

        to_score = [
            ShardToScore(
                work.kind, shards.read_shard(work.tar), [scorer(spec) for spec, *_ in work.missing]
            )
            for work in unit
        ]
        return score_shards(to_score, context, finish, threads)

    return run


def select_ledger_notes(table: pa.Table) -> dict[str, Any]:
    """The part of a table's metadata that its ledger entry notes."""
    from stylear.curate.score import read_metadata

    metadata = read_metadata(table)
    return {name: metadata[name] for name in LEDGER_NOTES if name in metadata}
