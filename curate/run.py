"""The orchestrator: all stages of a recipe over one corpus, in order, resumable at any point."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.engine import LOCAL, Engine
from curate.ledger import ALL, Ledger, Made, family, locked
from curate.manifest import write_manifest
from curate.mend import drop_unreadable
from curate.mend import verify as verify_files
from curate.objects import in_process
from curate.recipe import Recipe, dump_recipe
from curate.stage import (
    CHEAP,
    COLUMNS,
    DIVERSITY,
    FETCHED,
    LEDGER,
    MANIFEST,
    MIX,
    RECIPE,
    REFILL,
    REPORT,
    STAGES,
    VERDICTS,
    WORK,
)
from curate.steps import Build, Result
from curate.storage import remove, remove_unfinished, work_folder, write_text
from stylear.errors import CorpusError, SettingsChanged, UsageError

if TYPE_CHECKING:
    from curate.steps.refill import Refilled

Step = Callable[[Build], Result]
OUTPUTS = {
    "fetch": ("raw", FETCHED, WORK, REFILL),
    "synthesize": ("stylized",),
    "score": ("scores",),
    "filter": (VERDICTS, COLUMNS, DIVERSITY),
    "mix": ("train", "val", MIX),
    "pairs": ("preferences",),
}


@dataclass(frozen=True, slots=True)
class Done:
    """A finished run: what each stage did, and the page to look at."""

    corpus: Path
    results: tuple[Result, ...]
    report: Path

    def rows(self) -> list[dict[str, Any]]:
        """One row a stage, for a table."""
        return [result.row() for result in self.results]

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "corpus": str(self.corpus),
            "report": str(self.report),
            "stages": [asdict(result) for result in self.results],
        }


def run(
    recipe: Recipe,
    corpus: Path,
    *,
    workers: int = 0,
    redo: str | None = None,
    engine: Engine = LOCAL,
    verify: bool = True,
) -> Done:
    """Build the corpus of a recipe, then audit it and draw its report.

    What is committed already is skipped. Raises SettingsChanged before anything is written when
    expensive output of other settings lies there, CorpusLocked while another process writes.
    """
    results = run_stages(
        STAGES, recipe, corpus, workers=workers, redo=redo, engine=engine, verify=verify
    )
    check(corpus)
    return Done(corpus, tuple(results), draw(corpus))


def run_stages(
    stages: Iterable[str],
    recipe: Recipe,
    corpus: Path,
    *,
    workers: int = 0,
    redo: str | None = None,
    engine: Engine = LOCAL,
    verify: bool = True,
) -> list[Result]:
    """Run some stages in order; the manifest is written when the last of all, pairs, is among them.

    With `verify`, what earlier runs committed is hashed before it is trusted, and mended where it is
    damaged; else only its size is looked at.
    """
    stages = tuple(stages)
    check_place(corpus)
    if in_process(corpus):
        if engine.name != LOCAL.name:
            raise UsageError(f"--engine {engine.name}: {corpus} lives in one process; use local")
        workers = 1  # another process would write where nobody reads
    with locked(corpus):
        build = Build(corpus, recipe, workers, engine)
        if redo is not None:
            forget_from(corpus, redo)
        drop_unreadable(build.ledger, stages)
        check_settings(build)
        remove_unfinished(corpus)
        _go_on_with_a_retry(build)
        if verify:
            verify_files(build.ledger, stages, build.cores)
        _write_recipe(build)
        results = []
        for stage in stages:
            result = step(stage)(build)
            if result.made:
                (corpus / MANIFEST).unlink(missing_ok=True)
            results.append(result)
        remove_unfinished(corpus)  # of workers that died, where the engine went on without them
        if "pairs" in {result.stage for result in results}:
            write_manifest(corpus)
        _end_a_retry(corpus, stages)
    return results


def retry(
    recipe: Recipe, corpus: Path, statuses: Sequence[str], *, workers: int = 0
) -> tuple[Refilled, list[Result]]:
    """Ask again for the downloads that failed in some way, then redo what follows, if it was there.

    Scores of shards that did not change are kept. Raises UsageError when no download failed that way.
    """
    from curate.steps.refill import forget, refill

    if in_process(corpus):
        workers = 1
    ledger = Ledger(corpus)
    followed = [s for s in STAGES[1:] if s in {family(name) for name in ledger.stages()}]
    with locked(corpus):
        build = Build(corpus, recipe, workers)
        check_settings(build)
        remove_unfinished(corpus)
        refilled = refill(build, statuses, followed, lambda unit: _outdate(corpus, unit))
        if not refilled.followed:
            forget(corpus, [])
    if not refilled.units or not refilled.followed:
        return refilled, []
    results = run_stages(refilled.followed, recipe, corpus, workers=workers)
    if "pairs" in refilled.followed:
        check(corpus)
        draw(corpus)
    return refilled, results


def _go_on_with_a_retry(build: Build) -> None:
    """Put shards in their places that a killed retry had finished and not put there."""
    if (build.corpus / REFILL).is_dir():
        from curate.steps.refill import take_over

        take_over(build, lambda unit: _outdate(build.corpus, unit))


def _end_a_retry(corpus: Path, redone: Collection[str]) -> None:
    """Remove what a retry kept for the case of being killed, when what followed is redone."""
    if (corpus / REFILL).is_dir():
        from curate.steps.refill import forget

        forget(corpus, redone)


def _outdate(corpus: Path, unit: str) -> None:
    """Remove what was made of a raw shard that is about to change; the cheap stages see it themselves."""
    ledger = Ledger(corpus)
    (corpus / MANIFEST).unlink(missing_ok=True)
    ledger.remove("synthesize")
    remove(corpus / "stylized")
    for stage in ledger.stages():
        for entry in ledger.entries(stage) if family(stage) == "score" else ():
            if entry.unit == f"raw-{unit}" or entry.unit.startswith("stylized-"):
                ledger.path(stage, entry.unit).unlink()
                for name in entry.files:
                    (corpus / name).unlink(missing_ok=True)


def step(stage: str) -> Step:
    """The function that runs a stage over a corpus."""
    if stage == "fetch":
        from curate.steps.fetch import fetch

        return fetch
    if stage == "synthesize":
        from curate.steps.synthesize import synthesize

        return synthesize
    if stage == "score":
        from curate.steps.score import score

        return score
    from curate.steps.whole import filter_step, mix_step, pairs_step

    return {"filter": filter_step, "mix": mix_step, "pairs": pairs_step}[stage]


def check(corpus: Path) -> None:
    """Audit a corpus. Raises AuditFailed when anything differs from its manifest."""
    from curate.audit import audit

    audit(corpus).require()


def draw(corpus: Path) -> Path:
    """Write the report of a corpus; the page's path."""
    from curate.report import write_report

    return write_report(corpus)


def check_place(corpus: Path) -> None:
    """Raise UsageError when `corpus` is a file, or a folder that holds something else."""
    if corpus.is_file():
        raise UsageError(f"{corpus}: expected a folder for the corpus, found a file")
    if corpus.is_dir() and not (corpus / LEDGER).is_dir() and not (corpus / RECIPE).is_file():
        strange = sorted(p.name for p in corpus.iterdir() if not p.name.startswith("."))
        if strange:
            raise UsageError(
                f"{corpus}: expected a corpus or an empty folder, found {strange[0]}",
                hint="give a new folder as --out",
            )


def check_settings(build: Build) -> None:
    """Raise SettingsChanged when output that was expensive was made by other settings."""
    ledger = build.ledger
    for stage, made in expensive(build.recipe, ledger).items():
        ledger.check_settings(stage, made)


def expensive(recipe: Recipe, ledger: Ledger) -> dict[str, Made]:
    """How each expensive stage that has output would be made now."""
    found: dict[str, Made] = {}
    stages = ledger.stages()
    if "fetch" in stages:
        from curate.steps import fetch

        found["fetch"] = fetch.how_made(recipe)
    if "synthesize" in stages and recipe.references:
        from curate.steps import synthesize

        found["synthesize"] = synthesize.how_made(recipe, ledger)
    if any(family(stage) == "score" for stage in stages):
        from curate.score import scorer_fingerprint
        from curate.steps import score

        for spec in dict.fromkeys([*score.passes(recipe), *score.scorers(recipe)]):
            if score.ledger_stage(spec) in stages:
                found[score.ledger_stage(spec)] = score.how_made(spec, scorer_fingerprint(spec))
    return found


def forget_from(corpus: Path, stage: str) -> None:
    """Remove the output of a stage and of all that follow, entries first."""
    if stage not in STAGES:
        raise UsageError(f"--redo: expected one of {', '.join(STAGES)}, found {stage!r}")
    ledger, names = Ledger(corpus), STAGES[STAGES.index(stage) :]
    (corpus / MANIFEST).unlink(missing_ok=True)
    for entry_stage in ledger.stages():
        if family(entry_stage) in names:
            ledger.remove(entry_stage)
    for name in [REPORT, *(output for stage in names for output in OUTPUTS[stage])]:
        remove(work_folder(corpus) if name == WORK else corpus / name)


def recipe_path(corpus: Path) -> Path:
    """The recipe that a corpus was made by. Raises CorpusError when the folder is no corpus."""
    path = corpus / RECIPE
    if not path.is_file():
        raise CorpusError(
            f"{corpus}: expected a corpus (a folder with {RECIPE}), found none",
            hint="make one with `stylear curate run RECIPE --out CORPUS`",
        )
    return path


def preview(recipe: Recipe, corpus: Path, redo: str | None = None) -> list[dict[str, Any]]:
    """What `run` would do, one row a stage; changes nothing."""
    check_place(corpus)
    ledger = Ledger(corpus)
    forgotten = STAGES[STAGES.index(redo) :] if redo in STAGES else ()
    changed: dict[str, SettingsChanged] = {}
    for stage, made in expensive(recipe, ledger).items():
        try:
            ledger.check_settings(stage, made)
        except SettingsChanged as error:
            changed[family(stage)] = error
    rows = []
    for stage in STAGES:
        stages = [name for name in ledger.stages() if family(name) == stage]
        entries = [entry for name in stages for entry in ledger.entries(name)]
        units = [entry for entry in entries if entry.unit != ALL] or entries
        if stage in forgotten or not entries:
            what = "make"
        elif stage in changed:
            what = f"stop: {changed[stage].message}"
        elif stage in CHEAP:
            what = "redo if its settings or inputs changed"
        else:
            what = "continue" if ledger.entry(stage, ALL) is None and stage != "score" else "check"
        rows.append({"stage": stage, "committed": len(units), "next": what})
    return rows


def _write_recipe(build: Build) -> None:
    """Write the resolved recipe, unless it stands there already."""
    path, text = build.corpus / RECIPE, dump_recipe(build.recipe)
    if not path.is_file() or path.read_text("utf-8") != text:
        (build.corpus / MANIFEST).unlink(missing_ok=True)
        write_text(path, text)
