"""`stylear curate`: build a corpus, one stage at a time or all at once, and verify it."""

from __future__ import annotations

import typer

from stylear.curate.cli import build, diff, explain, export, forget, init, inspect, review, stages

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Build a style corpus from a recipe, and verify it.",
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
    diff.diff,
    forget.forget,
    inspect.query,
    inspect.report,
    review.review,
    export.export,
):
    app.command(command.__name__.rstrip("_"))(command)
