"""The score step: every scorer over every raw and stylized shard, committed as scores/<scorer>/.

A shard is passed once, by all scorers that miss it; what each wrote has a ledger entry of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from stylear.curate.references import StyleReference, load_references
from stylear.curate.score.passes import (
    STAGE,
    ledger_stage,
    needs_whole_corpus,
    passes,
    score_inputs,
    scorers,
)
from stylear.curate.stage import Build, StageResult, file_digests, pair_shards

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.score.scorer import Scorer

RUN_PAIRS = (
    16_000  # of the shards that one worker passes at a time on a GPU, so that it never waits (ours)
)
NOTED = ("captions_cut", "halved_to")  # of what a table tells, what the ledger notes


@dataclass(frozen=True, slots=True)
class Work:
    """One shard, and the scorers that miss it."""

    kind: ShardKind
    tar: Path
    rows: int
    missing: tuple[tuple[Any, Path, StageInputs], ...]  # settings, table to write, how it is made

    @property
    def unit(self) -> str:
        return f"{self.kind}-{self.tar.stem}"


Unit = tuple[Work, ...]  # a run of shards
Written = dict[str, tuple[FileInfo, dict[str, Any]]]  # by scorer: its file, and what to note


def run(build: Build) -> StageResult:
    """Commit the columns of every scorer for every shard.

    Raises SettingsChanged for columns of other settings or weights, CorpusError when fetch or
    synthesize is not finished.
    """
    from stylear.curate.engine.gpus import visible_gpus
    from stylear.curate.score.device import loading_threads

    ledger, corpus = build.ledger, build.corpus
    references = load_references(build.recipe)
    specs = passes(build.recipe)
    works = plan(build, specs, references)
    if build.engine.name == LOCAL.name:  # on a cluster the workers' machines decide
        require_devices(works)
    gpu = on_gpu(specs)
    at_once = 1
    if gpu:  # two runs for each GPU at least, so that none is left without work
        gpus = build.workers or len(visible_gpus()) or 1
        at_once = min(RUN_PAIRS, sum(work.rows for work in works) // (2 * gpus))
    units = list(runs(works, at_once))
    total = sum(work.rows for work in works)
    with Bar("score", total=total, unit="images") as bar:
        progress = WorkProgress(bar, total)
        opened = partial(open_worker, references, corpus, loading_threads(gpu=gpu))
        results = build.map_units(opened, units, len(units), gpu=gpu, on_progress=progress.report)
        for unit, written in zip(units, results, strict=True):
            for work, files in zip(unit, written, strict=True):
                for spec, out, made in work.missing:
                    info, note = files[spec.name]
                    ledger.commit(
                        ledger_stage(spec),
                        work.unit,
                        made,
                        rows_in=work.rows,
                        kept=work.rows,
                        dropped={},
                        files={out.relative_to(corpus).as_posix(): info},
                        note=note,
                    )
                progress.finish(work.rows, work.unit)
    tables = sum(len(work.missing) for work in works) + compare(build, references)
    specs += filter(needs_whole_corpus, scorers(build.recipe))
    shards_there = [f"{kind}-{entry.unit}" for kind, entry in pair_shards(build)]
    entries = [ledger.entry(ledger_stage(spec), unit) for spec in specs for unit in shards_there]
    committed = [entry for entry in entries if entry is not None]
    warn_truncated_captions(committed)
    return StageResult.from_entries(STAGE, committed, tables)


def compare(build: Build, references: Sequence[StyleReference]) -> int:
    """Run the second phase; how many columns were written."""
    from stylear.curate.score import scorer_fingerprint

    written = 0
    for spec in filter(needs_whole_corpus, scorers(build.recipe)):
        from stylear.curate.score.nearest_step import score_nearest

        written += score_nearest(build, spec, scorer_fingerprint(spec), references)
    return written


def plan(build: Build, specs: Sequence[Any], references: Sequence[StyleReference]) -> list[Work]:
    """The shards that some scorer misses. Raises SettingsChanged for columns of other settings or weights."""
    from stylear.curate.score import scorer_fingerprint
    from stylear.curate.score.device import resolve_device
    from stylear.curate.score.open import scorer_class

    styles = {
        spec.name: [scorer_class(spec.type).reads(spec, one) for one in references]
        for spec in specs
    }
    ready = [(resolve_device(spec), scorer_fingerprint(spec)) for spec in specs]
    found = []
    for kind, entry in pair_shards(build):
        missing = []
        for spec, fingerprint in ready:
            inputs = [*file_digests(entry), *(styles[spec.name] if kind == "stylized" else ())]
            made = score_inputs(spec, fingerprint, inputs)
            if not build.ledger.is_current(ledger_stage(spec), f"{kind}-{entry.unit}", made):
                out = score_path(build.corpus, spec.name, kind, int(entry.unit))
                missing.append((spec, out, made))
        if missing:
            tar = build.corpus / kind / f"{entry.unit}.tar"
            found.append(Work(kind, tar, entry.rows_in, tuple(missing)))
    return found


def runs(works: Sequence[Work], pairs: int) -> Iterator[Unit]:
    """Shards in runs of at least `pairs` pairs, which one worker passes without a stop."""
    run: list[Work] = []
    for work in works:
        run.append(work)
        if sum(one.rows for one in run) >= pairs:
            yield tuple(run)
            run = []
    if run:
        yield tuple(run)


def warn_truncated_captions(entries: Sequence[Entry]) -> None:
    """Say how many captions were longer than their text encoder reads."""
    cut: dict[str, int] = {}
    for entry in entries:
        if count := entry.note.get("captions_cut"):
            name = entry.stage.partition(".")[2]
            cut[name] = cut.get(name, 0) + count
    for name, count in cut.items():
        say(f"{name}: {count} captions are longer than its model reads; see column {name}.cut")


def require_devices(works: Sequence[Work]) -> None:
    """Raise UsageError before any work when a scorer asks for a device that this machine lacks."""
    from stylear.curate.score.device import resolve_device
    from stylear.device import pick_device

    asked = {
        getattr(resolve_device(spec), "device", "cpu") for w in works for spec, *_ in w.missing
    }
    for device in sorted(asked):
        pick_device(device, "score.device")


def on_gpu(specs: Sequence[Any]) -> bool:
    """Whether a scorer will use a GPU: then one process does, instead of several that share it."""
    from stylear.curate.score.device import resolve_device

    return any(getattr(resolve_device(spec), "device", "cpu") != "cpu" for spec in specs)


def open_worker(
    references: Sequence[StyleReference], corpus: Path, threads: int
) -> Callable[[Unit], list[Written]]:
    """What a worker runs on each unit; each scorer is opened once, when it is first needed."""
    from stylear.curate.score import open_scorer
    from stylear.curate.score.scorer import Context
    from stylear.curate.score.sweep import Shard, sweep

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
                    ledger_notes(tables[spec.name]),
                )
                for spec, out, _ in unit[number].missing
            }

        given = [
            Shard(
                work.kind, shards.read_shard(work.tar), [scorer(spec) for spec, *_ in work.missing]
            )
            for work in unit
        ]
        return sweep(given, context, finish, threads)

    return run


def ledger_notes(table: pa.Table) -> dict[str, Any]:
    """What a table tells that the ledger notes too."""
    from stylear.curate.score import read_metadata

    told = read_metadata(table)
    return {name: told[name] for name in NOTED if name in told}
