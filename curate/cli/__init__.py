"""`stylear curate`: build a corpus, one stage at a time or all of them, and prove it."""

from __future__ import annotations

import typer

from stylear.curate.cli import build, explain, export, init, inspect, stages

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Build a style corpus from a recipe, stage by stage, and prove what it is.",
)
for command in (
    init.init,
    build.run,
    stages.fetch,
    build.retry,
    stages.synthesize,
    stages.score,
    stages.filter_,
    stages.mix,
    stages.pairs,
    inspect.audit,
    explain.explain,
    inspect.query,
    inspect.report,
    export.export,
):
    app.command(command.__name__.rstrip("_"))(command)
