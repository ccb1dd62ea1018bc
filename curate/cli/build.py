"""`stylear curate run` and `retry`: a whole corpus."""

from __future__ import annotations

from typing import Annotated

import typer

from stylear.console import DryRunOption, JsonOption, emit_json, emit_table, emit_tables
from stylear.curate.cli.options import (
    AddressOption,
    AllowEmptyOption,
    CorpusArgument,
    EngineOption,
    MinSuccessOption,
    NetworkOption,
    OutOption,
    RecipeArgument,
    RedoOption,
    SetOption,
    VerifyOption,
    WorkersOption,
)
from stylear.curate.cli.recipes import load_changed_recipe


def run(
    recipe: RecipeArgument,
    out: OutOption,
    workers: WorkersOption = 0,
    set_: SetOption = [],  # noqa: B006
    redo: RedoOption = None,
    min_success: MinSuccessOption = None,
    allow_network: NetworkOption = [],  # noqa: B006
    allow_empty: AllowEmptyOption = False,
    dry_run: DryRunOption = False,
    engine: EngineOption = "local",
    ray_address: AddressOption = None,
    verify: VerifyOption = True,
    json: JsonOption = False,
) -> None:
    """Build a whole corpus, audit it and write its report.

    If it is interrupted, run the same command again to continue. Output of different settings is never
    mixed: filter, mix and pairs are redone; for fetch, synthesize and score the command stops and says
    what differs.

    Before anything is written or downloaded, all sources, references, models and the disk space are
    checked. --dry-run stops there: it prints the checks, all problems at once, and for each stage the
    number of pairs, the space and time it would take, and whether it would be kept, continued or redone.

    Example: stylear curate run demo --out corpus
    """
    from stylear.curate import run as runner
    from stylear.curate.engine import Engine
    from stylear.curate.preflight.checks import require_checks
    from stylear.curate.preflight.preview import preview_run

    loaded = load_changed_recipe(recipe, set_, min_success, allow_network)
    chosen_engine = Engine(engine, ray_address)
    if dry_run:
        preview = preview_run(
            loaded, out, redo, workers=workers, engine=chosen_engine, allow_empty=allow_empty
        )
        emit_json(preview.summary()) if json else emit_tables(preview.tables())
        require_checks(preview.checks)
        return
    done = runner.run(
        loaded,
        out,
        workers=workers,
        redo=redo,
        engine=chosen_engine,
        verify=verify,
        allow_empty=allow_empty,
    )
    if json:
        emit_json(done.summary())
    else:
        emit_table(done.rows())
        print(f"report: {done.report}")


def retry(
    corpus: CorpusArgument,
    status: Annotated[
        str,
        typer.Option(
            "--status",
            metavar="REASONS",
            help="Reasons of failures to retry, comma-separated: 404, 5xx, timeout, ...",
        ),
    ] = "429,5xx,timeout,retry-later",
    workers: WorkersOption = 0,
    json: JsonOption = False,
) -> None:
    """Retry failed downloads, then update what depends on them.

    Only the rows that failed are downloaded again; each success replaces the failure in its shard.

    Example: stylear curate retry corpus --status 429,5xx,timeout
    """
    from dataclasses import asdict

    from stylear.curate import run as runner

    statuses = [part.strip() for part in status.split(",") if part.strip()]
    loaded = load_changed_recipe(runner.require_recipe_path(corpus), [])
    retried, results = runner.retry(loaded, corpus, statuses, workers=workers)
    if json:
        stages = [asdict(result) for result in results]
        emit_json({"downloads": retried.rows(), "shards": retried.units, "stages": stages})
    else:
        emit_table(retried.rows())
        emit_table([result.row() for result in results])
