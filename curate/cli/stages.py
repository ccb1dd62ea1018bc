"""`stylear curate STAGE`: one stage at a time, on the same corpus."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stylear.console import DryRunOption, JsonOption, emit_json, emit_table, emit_tables
from stylear.curate.cli.options import (
    AddressOption,
    AllowEmptyOption,
    EngineOption,
    MinSuccessOption,
    NetworkOption,
    OutOption,
    SetOption,
    StageRecipe,
    WorkersOption,
)
from stylear.curate.cli.recipes import load_changed_recipe, run_stage


def fetch(
    out: OutOption,
    recipe: StageRecipe = None,
    workers: WorkersOption = 0,
    set_: SetOption = [],  # noqa: B006
    redo: Annotated[bool, typer.Option("--redo", help="Fetch again from scratch.")] = False,
    min_success: MinSuccessOption = None,
    allow_network: NetworkOption = [],  # noqa: B006
    allow_empty: AllowEmptyOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Fetch raw pairs from the recipe's sources into raw/.

    Example: stylear curate fetch demo --out corpus
    """
    if dry_run:
        from stylear.curate.fetch.preview import preview_sources
        from stylear.curate.preflight.checks import check_sources, require_checks
        from stylear.curate.run import require_recipe_path
        from stylear.curate.stage import Build

        loaded = load_changed_recipe(
            recipe if recipe is not None else require_recipe_path(out), set_
        )
        require_checks(list(check_sources(Build(out, loaded, allow_empty=allow_empty))))
        rows = preview_sources(loaded, allow_empty=allow_empty)
        emit_json(rows) if json else emit_table(rows)
        return
    run_stage(
        "fetch",
        recipe,
        out,
        workers,
        set_,
        redo,
        json,
        min_success=min_success,
        allow_networks=allow_network,
        allow_empty=allow_empty,
    )


def synthesize(
    out: OutOption,
    recipe: StageRecipe = None,
    workers: WorkersOption = 0,
    set_: SetOption = [],  # noqa: B006
    redo: Annotated[bool, typer.Option("--redo", help="Synthesize again from scratch.")] = False,
    dry_run: DryRunOption = False,
    engine: EngineOption = "local",
    ray_address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Synthesize stylized pairs into stylized/.

    Draws prompts or restyles raw pairs in the style of the references. --dry-run prints the plan: how many
    prompts, styles and images each split has, prompts before and after de-stylising, and the models that
    are missing.

    Example: stylear curate synthesize demo --out corpus
    """
    if dry_run:
        from stylear.curate import run as runner
        from stylear.curate.preflight.checks import require_output_folder
        from stylear.curate.stage import Build
        from stylear.curate.synthesize.preview import preview_plan, to_tables

        path = recipe if recipe is not None else runner.require_recipe_path(out)
        require_output_folder(out)
        preview = preview_plan(Build(out, load_changed_recipe(path, set_)))
        if json:
            emit_json(preview)
        else:
            emit_tables(to_tables(preview))
        return
    run_stage("synthesize", recipe, out, workers, set_, redo, json, engine, ray_address)


def score(
    out: OutOption,
    recipe: StageRecipe = None,
    workers: WorkersOption = 0,
    set_: SetOption = [],  # noqa: B006
    redo: Annotated[bool, typer.Option("--redo", help="Score again from scratch.")] = False,
    engine: EngineOption = "local",
    ray_address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Score all pairs with the recipe's scorers into scores/.

    Example: stylear curate score demo --out corpus
    """
    run_stage("score", recipe, out, workers, set_, redo, json, engine, ray_address)


def filter_(
    out: OutOption,
    recipe: StageRecipe = None,
    set_: SetOption = [],  # noqa: B006
    redo: Annotated[bool, typer.Option("--redo", help="Decide again from scratch.")] = False,
    dry_run: DryRunOption = False,
    diversity: Annotated[
        bool,
        typer.Option(
            "--diversity", help="With --dry-run: also measure the diversity of the kept pairs."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Decide from the scores which pairs to keep.

    Writes verdicts.parquet, columns.parquet and diversity.json. --dry-run prints how many pairs would be
    kept, and how many dropped for each reason, for example with other thresholds given by --set; after
    the first run that takes less than a second for a million pairs.

    Example: stylear curate filter --out corpus --set filter.best_of=2 --dry-run
    """
    from dataclasses import asdict

    from stylear.curate import filter as rules
    from stylear.curate import run as runner

    loaded = load_changed_recipe(
        recipe if recipe is not None else runner.require_recipe_path(out), set_
    )
    result: dict[str, Any]
    if dry_run:
        rows = rules.apply_rules(rules.load_rows(out, loaded, diversity=diversity), loaded.filter)
        result = {"funnel": rules.count_funnel(rows), "kept": rules.count_kept(rows)}
        to_tables = [result["funnel"], [result["kept"]]]
        if diversity:
            result["diversity"] = rules.measure_all_diversity(rows, loaded)
            to_tables.append(result["diversity"])
    else:
        done = runner.run_stages(["filter"], loaded, out, redo="filter" if redo else None)
        result = {
            "stages": [asdict(stage_result) for stage_result in done],
            "diversity": rules.read_diversity(out),
        }
        to_tables = [[stage_result.row() for stage_result in done], result["diversity"]]
    if json:
        emit_json(result)
        return
    for index, table in enumerate(to_tables):
        if index:
            print()
        emit_table(table)


def mix(
    out: OutOption,
    recipe: StageRecipe = None,
    set_: SetOption = [],  # noqa: B006
    redo: Annotated[bool, typer.Option("--redo", help="Mix again from scratch.")] = False,
    json: JsonOption = False,
) -> None:
    """Mix kept pairs into training shards, train/ and val/.

    Example: stylear curate mix demo --out corpus
    """
    run_stage("mix", recipe, out, 1, set_, redo, json)


def pairs(
    out: OutOption,
    recipe: StageRecipe = None,
    set_: SetOption = [],  # noqa: B006
    redo: Annotated[bool, typer.Option("--redo", help="Pair again from scratch.")] = False,
    json: JsonOption = False,
) -> None:
    """Build preference pairs into preferences/.

    Pairs the best candidate of each group with the worst. Also writes the manifest.

    Example: stylear curate pairs demo --out corpus
    """
    run_stage("pairs", recipe, out, 1, set_, redo, json)
