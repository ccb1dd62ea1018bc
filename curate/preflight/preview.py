"""Checks and plan together, for a dry run and before a real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stylear.curate.corpus.layout import STAGES
from stylear.curate.corpus.ledger import Ledger, StageInputs, stage_family
from stylear.curate.engine import LOCAL, Engine
from stylear.curate.preflight.checks import (
    UNUSABLE,
    Check,
    attempt,
    check_disk,
    check_recipe,
    require_checks,
    require_output_folder,
)
from stylear.curate.preflight.plan import StagePlan, find_changes, needed_bytes, plan_stages
from stylear.curate.recipe import Recipe
from stylear.curate.stage import Build
from stylear.errors import StylearError, UsageError


@dataclass(frozen=True, slots=True)
class Preview:
    """The checks and the plan of a run."""

    checks: tuple[Check, ...]
    stages: tuple[StagePlan, ...]

    @property
    def problems(self) -> list[StylearError]:
        """The errors of failed checks; empty if the run can start."""
        return [check.error for check in self.checks if check.error is not None]

    def tables(self) -> list[list[dict[str, Any]]]:
        """The checks and the plan as two tables."""
        return [[check.row() for check in self.checks], [plan.row() for plan in self.stages]]

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ok": not self.problems,
            "problems": [
                {"message": problem.message, "hint": problem.hint} for problem in self.problems
            ],
            "checks": [check.summary() for check in self.checks],
            "stages": [plan.summary() for plan in self.stages],
        }


def preview_run(
    recipe: Recipe,
    corpus: Path,
    redo: str | None = None,
    *,
    workers: int = 0,
    engine: Engine = LOCAL,
    allow_empty: bool = False,
) -> Preview:
    """Check everything that a run needs, and plan what it would do; nothing is changed.

    Raises UsageError for an unknown stage and for an output folder that holds something else.
    """
    require_output_folder(corpus)
    require_stage(redo)
    build = Build(corpus, recipe, workers, engine, allow_empty).with_snapshot()
    checks = check_recipe(build, STAGES, redo)
    try:
        current_inputs = expensive_inputs(recipe, build.ledger)
    except StylearError:  # the checks report a missing model or reference
        current_inputs = {}
    plans = plan_stages(build, checks, current_inputs, redo)
    again = STAGES[STAGES.index(redo) :] if redo in STAGES else ()
    checks += [
        Check(f"settings of {stage}", UNUSABLE, error)
        for stage, error in find_changes(build, current_inputs).items()
        if stage not in again
    ]
    checks.append(attempt("disk", partial(check_disk, corpus, needed_bytes(plans))))
    return Preview(tuple(checks), tuple(plans))


def check_inputs(build: Build, stages: Sequence[str], redo: str | None) -> list[Check]:
    """Check everything that the stages need before they start.

    Raises the error of the failed check, or SeveralErrors if there are several.
    """
    require_stage(redo)
    build = build.with_snapshot()
    checks = check_recipe(build, stages, redo)
    plans = plan_stages(build, checks, {}, redo)
    needed = needed_bytes([plan for plan in plans if plan.stage in stages])
    if needed:
        checks.append(attempt("disk", partial(check_disk, build.corpus, needed)))
    require_checks(checks)
    return checks


def require_stage(redo: str | None) -> None:
    """Raise UsageError if --redo does not name a stage."""
    if redo is not None and redo not in STAGES:
        raise UsageError(
            f"--redo: expected one of {', '.join(STAGES)}, found {redo!r}",
            hint="give the first stage to rebuild",
        )


def expensive_inputs(recipe: Recipe, ledger: Ledger) -> dict[str, StageInputs]:
    """The current inputs of each expensive stage that already has output."""
    inputs_by_stage: dict[str, StageInputs] = {}
    stages = ledger.stages()
    if "fetch" in stages:
        from stylear.curate.fetch import step as fetch

        inputs_by_stage["fetch"] = fetch.fetch_inputs(recipe, ledger)
    if "synthesize" in stages and recipe.references:
        from stylear.curate.synthesize import step as synthesize

        inputs_by_stage["synthesize"] = synthesize.make_synthesize_inputs(recipe, ledger)
    if any(stage_family(stage) == "score" for stage in stages):
        from stylear.curate.score import compute_scorer_fingerprint
        from stylear.curate.score import passes as score

        for spec in dict.fromkeys([*score.list_passes(recipe), *score.list_scorers(recipe)]):
            if score.ledger_stage(spec) in stages:
                inputs_by_stage[score.ledger_stage(spec)] = score.make_score_inputs(
                    spec, compute_scorer_fingerprint(spec)
                )
    return inputs_by_stage
