"""`stylear curate audit`, `query` and `report`: what a finished corpus is."""

from __future__ import annotations

from typing import Annotated

import typer

from stylear.console import JsonOption, emit_json, emit_table, say
from stylear.curate.cli.options import (
    CorpusArgument,
)


def audit(corpus: CorpusArgument, json: JsonOption = False) -> None:
    """Prove a finished corpus: hash every file, follow every key, recount ratio and splits.

    Exit 0 when nothing differs from the manifest, 1 when anything does; it changes nothing.

    Example: stylear curate audit corpus
    """
    from stylear.curate.audit import auditor as auditor

    result = auditor.audit(corpus)
    if json:
        emit_json(result.summary())
    else:
        emit_table(result.rows())
    for warning in result.warnings:
        say(f"warning: {warning}")
    result.require()


def query(
    corpus: CorpusArgument,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT.")],
    json: JsonOption = False,
) -> None:
    """Ask a corpus something in SQL; nothing can be changed by it.

    Tables: pairs (raw and stylized), verdicts, columns (what the filter compares, with every score),
    mix, train, val, preferences.

    Example: stylear curate query corpus "select reason, count(*) from verdicts group by reason"
    """
    from stylear.curate import query as asker
    from stylear.curate import run as runner

    runner.recipe_path(corpus)
    rows = asker.query(corpus, sql)
    emit_json(rows) if json else emit_table(rows)


def report(corpus: CorpusArgument, json: JsonOption = False) -> None:
    """Draw a corpus as one page: funnel, scores, pictures of each style, files and hashes.

    Example: stylear curate report corpus
    """
    from stylear.curate import run as runner

    runner.recipe_path(corpus)
    page = runner.write_report(corpus)
    emit_json({"report": str(page)}) if json else print(f"report: {page}")
