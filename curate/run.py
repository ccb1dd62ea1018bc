"""The orchestrator: runs the stages of a recipe over one corpus in order, resumable at any point."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.audit.manifest import read_warnings, write_manifest
from stylear.curate.corpus.layout import (
    COLUMNS,
    DIVERSITY,
    FETCHED,
    FORGET,
    MANIFEST,
    MIX,
    PLAN,
    PLAN_STAGE,
    RECIPE,
    REPORT,
    RETRY,
    STAGES,
    VERDICTS,
    WORK,
)
from stylear.curate.corpus.ledger import ALL, Ledger, lock_corpus, stage_family
from stylear.curate.corpus.object_store import in_process
from stylear.curate.corpus.repair import drop_unreadable_entries
from stylear.curate.corpus.repair import verify_committed as verify_files
from stylear.curate.corpus.storage import remove_path, remove_unfinished, work_folder, write_text
from stylear.curate.corpus.tombstones import read_tombstones
from stylear.curate.engine import LOCAL, Engine
from stylear.curate.preflight.checks import require_output_folder
from stylear.curate.preflight.plan import sum_pairs
from stylear.curate.preflight.preview import check_inputs, expensive_inputs, require_stage
from stylear.curate.preflight.rates import record_rate
from stylear.curate.recipe import Recipe, dump_recipe, load_recipe
from stylear.curate.recipe.folder import write_recipe_folder
from stylear.curate.stage import Build, StageResult
from stylear.errors import CorpusError, UsageError

if TYPE_CHECKING:
    from stylear.curate.fetch.retry import RetryResult

StageFunction = Callable[[Build], StageResult]
OUTPUTS = {
    "fetch": ("raw", FETCHED, WORK, RETRY),
    "synthesize": ("stylized", PLAN),
    "score": ("scores",),
    "filter": (VERDICTS, COLUMNS, DIVERSITY),
    "mix": ("train", "val", MIX),
    "pairs": ("preferences",),
}


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run did: the result of each stage, and the report page."""

    corpus: Path
    results: tuple[StageResult, ...]
    report: Path
    warnings: tuple[str, ...] = ()  # how the corpus falls short of the recipe

    def rows(self) -> list[dict[str, Any]]:
        """One table row per stage."""
        return [result.row() for result in self.results]

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "corpus": str(self.corpus),
            "report": str(self.report),
            "stages": [asdict(result) for result in self.results],
            "warnings": list(self.warnings),
        }


def run(
    recipe: Recipe,
    corpus: Path,
    *,
    workers: int = 0,
    redo: str | None = None,
    engine: Engine = LOCAL,
    verify: bool = True,
    allow_empty: bool = False,
) -> RunResult:
    """Build the corpus of a recipe, then audit it and draw its report.

    Committed units are skipped. Raises SettingsChanged, before anything is written, if expensive output
    was made with other settings, CorpusLocked while another process writes, and
    SourceEmpty for a source without pairs, unless `allow_empty`.
    """
    results = run_stages(
        STAGES,
        recipe,
        corpus,
        workers=workers,
        redo=redo,
        engine=engine,
        verify=verify,
        allow_empty=allow_empty,
    )
    require_audit(corpus)
    return RunResult(corpus, tuple(results), write_report(corpus), read_warnings(corpus))


def run_stages(
    stages: Iterable[str],
    recipe: Recipe,
    corpus: Path,
    *,
    workers: int = 0,
    redo: str | None = None,
    engine: Engine = LOCAL,
    verify: bool = True,
    allow_empty: bool = False,
) -> list[StageResult]:
    """Run some stages in order; after the last one, pairs, the manifest is written.

    With `verify`, what earlier runs committed is hashed before it is trusted, and damaged files are
    rebuilt; otherwise only sizes are compared. `allow_empty` accepts sources without pairs.
    """
    stages = tuple(stages)
    require_output_folder(corpus)
    if in_process(corpus):
        if engine.name != LOCAL.name:
            raise UsageError(
                f"--engine {engine.name}: {corpus} exists in this process only",
                hint="use --engine local, or a corpus on a disk or in an object store",
            )
        workers = 1  # another process would write to its own memory
    build = Build(corpus, recipe, workers, engine, allow_empty)
    checks = check_inputs(build, stages, redo)
    with lock_corpus(corpus):
        build = Build(corpus, recipe, workers, engine, allow_empty, sum_pairs(checks))
        _resume_forget(corpus)
        if redo is not None:
            remove_from_stage(corpus, redo)
        drop_unreadable_entries(build.ledger, stages)
        check_settings(build)
        remove_unfinished(corpus)
        _resume_retry(build)
        if verify:
            verify_files(build.ledger, stages, build.cores)
        if "synthesize" in stages:
            check_references(build)
        # if growing the corpus fails, it keeps its recipe and manifest
        has_raw = "fetch" in stages and build.ledger.entry("fetch", ALL) is not None
        if not has_raw:
            _write_recipe(build)
        results = []
        for stage in stages:
            started = time.monotonic()
            result = load_stage(stage)(build)
            if stage == "fetch" and has_raw:
                _write_recipe(build)
            if result.new:
                (corpus / MANIFEST).unlink(missing_ok=True)
                new_pairs = result.rows_in * result.new // result.units
                record_rate(stage, build, new_pairs, time.monotonic() - started)
            results.append(result)
        remove_unfinished(corpus)  # of workers that died while the engine continued without them
        if "pairs" in {result.stage for result in results}:
            write_manifest(corpus)
        _finish_retry(corpus, stages)
    return results


def retry(
    recipe: Recipe, corpus: Path, statuses: Sequence[str], *, workers: int = 0
) -> tuple[RetryResult, list[StageResult]]:
    """Retry the downloads that failed for the given reasons, then redo the later stages that had run.

    Scores of unchanged shards are kept. Raises UsageError if no download failed for such a reason.
    """
    from stylear.curate.fetch.retry import finish_retry, retry_downloads

    if in_process(corpus):
        workers = 1
    ledger = Ledger(corpus)
    followed = [s for s in STAGES[1:] if s in {stage_family(name) for name in ledger.stages()}]
    with lock_corpus(corpus):
        build = Build(corpus, recipe, workers)
        _resume_forget(corpus)
        check_settings(build)
        remove_unfinished(corpus)
        retried = retry_downloads(
            build, statuses, followed, lambda unit: _remove_derived(corpus, unit)
        )
        if not retried.followed:
            finish_retry(corpus, [])
    if not retried.units or not retried.followed:
        return retried, []
    results = run_stages(retried.followed, recipe, corpus, workers=workers)
    if "pairs" in retried.followed:
        require_audit(corpus)
        write_report(corpus)
    return retried, results


def _resume_forget(corpus: Path) -> None:
    """Finish a forget that was killed after its tombstones were written.

    Raises CorpusError for damaged tombstones, before anything is removed or fetched again.
    """
    read_tombstones(corpus)
    if (corpus / FORGET).is_dir():
        from stylear.curate.forget import finish_forget

        finish_forget(corpus)


def _resume_retry(build: Build) -> None:
    """Install the shards that a killed retry had finished but not yet installed."""
    if (build.corpus / RETRY).is_dir():
        from stylear.curate.fetch.retry import resume_retry

        resume_retry(build, lambda unit: _remove_derived(build.corpus, unit))


def _finish_retry(corpus: Path, redone: Collection[str]) -> None:
    """Remove the recovery state of a retry once the later stages are redone."""
    if (corpus / RETRY).is_dir():
        from stylear.curate.fetch.retry import finish_retry

        finish_retry(corpus, redone)


def _remove_derived(corpus: Path, unit: str) -> None:
    """Remove the scores of a raw shard that is about to change; other stages detect the change.

    Images drawn from its pairs stay: a retry changes only pairs that had no image.
    """
    ledger = Ledger(corpus)
    (corpus / MANIFEST).unlink(missing_ok=True)
    for stage in ledger.stages():
        for entry in ledger.entries(stage) if stage_family(stage) == "score" else ():
            if entry.unit == f"raw-{unit}":
                ledger.path(stage, entry.unit).unlink()
                for name in entry.files:
                    (corpus / name).unlink(missing_ok=True)


def load_stage(stage: str) -> StageFunction:
    """Import the function that runs a stage."""
    run: StageFunction = import_module(f"stylear.curate.{stage}.step").run
    return run


def require_audit(corpus: Path) -> None:
    """Audit a corpus. Raises AuditFailed if anything differs from its manifest."""
    from stylear.curate.audit.auditor import audit

    audit(corpus).require()


def write_report(corpus: Path) -> Path:
    """Write the report of a corpus; the page's path. Raises CorpusError when stages are missing."""
    from stylear.curate.report import write_report

    if missing := find_missing_stages(corpus):
        raise CorpusError(
            f"{corpus}: expected a finished corpus, found unfinished stages: {', '.join(missing)}",
            hint=finish_command(corpus),
        )
    return write_report(corpus)


def find_missing_stages(corpus: Path) -> list[str]:
    """The stages that a report needs and that are not finished, in order."""
    ledger = Ledger(corpus)
    if ledger.entry("mix", ALL) is not None and ledger.entry("pairs", ALL) is not None:
        return []
    begun = {stage_family(name) for name in ledger.stages()}
    finished = {stage for stage in STAGES if ledger.entry(stage, ALL) is not None}
    finished |= begun & {"score"}  # it has one entry per scorer and no entry of its own
    if not load_recipe(corpus / RECIPE).references:
        finished.add("synthesize")
    return [stage for stage in STAGES if stage not in finished]


def finish_command(corpus: Path) -> str:
    """The hint to finish a corpus by running its own recipe."""
    recipe, out = (shlex.quote(str(path)) for path in (corpus / RECIPE, corpus))
    return f"finish it: `stylear curate run {recipe} --out {out}`"


def check_settings(build: Build) -> None:
    """Raise SettingsChanged if an expensive stage has output made with other settings."""
    ledger = build.ledger
    for stage, inputs in expensive_inputs(build.recipe, ledger).items():
        ledger.check_settings(stage, inputs)


def check_references(build: Build) -> None:
    """Raise SettingsChanged if a style reference that images were drawn with is missing or has changed."""
    if PLAN_STAGE in build.ledger.stages() and build.recipe.references:
        from stylear.curate.references import load_references
        from stylear.curate.synthesize.generations import read_generations, require_references

        require_references(build, read_generations(build), load_references(build.recipe))


def remove_from_stage(corpus: Path, stage: str) -> None:
    """Remove the output of a stage and of all later ones, ledger entries first."""
    require_stage(stage)
    ledger, names = Ledger(corpus), STAGES[STAGES.index(stage) :]
    (corpus / MANIFEST).unlink(missing_ok=True)
    for entry_stage in ledger.stages():
        if stage_family(entry_stage) in names:
            ledger.remove(entry_stage)
    for name in [REPORT, *(output for stage in names for output in OUTPUTS[stage])]:
        remove_path(work_folder(corpus) if name == WORK else corpus / name)


def require_recipe_path(corpus: Path) -> Path:
    """The path of a corpus's recipe. Raises CorpusError if the folder is not a corpus."""
    path = corpus / RECIPE
    if not path.is_file():
        raise CorpusError(
            f"{corpus}: expected a corpus (a folder with {RECIPE}), found none",
            hint="build one with `stylear curate run RECIPE --out CORPUS`",
        )
    return path


def _write_recipe(build: Build) -> None:
    """Write the resolved recipe and the note with its base folder, if they changed."""
    path, text = build.corpus / RECIPE, dump_recipe(build.recipe)
    write_recipe_folder(build.corpus, build.recipe)
    if not path.is_file() or path.read_text("utf-8") != text:
        (build.corpus / MANIFEST).unlink(missing_ok=True)
        write_text(path, text)
