"""`stylear curate audit`, `query` and `report`: commands that read a finished corpus."""

from __future__ import annotations

from typing import Annotated

import typer

from stylear.console import JsonOption, emit_json, emit_table, emit_tables, say
from stylear.curate.cli.options import CorpusArgument


def audit(corpus: CorpusArgument, json: JsonOption = False) -> None:
    """Verify a finished corpus against its manifest.

    Prints each check and what it proves, then every difference. Modifies nothing. The exit code is 0 if
    there is no difference, else 1.

    Example: stylear curate audit corpus
    """
    from stylear.curate.audit import auditor

    result = auditor.audit(corpus)
    if json:
        emit_json(result.summary())
    else:
        emit_tables([result.check_rows(), result.difference_rows()])
    for warning in result.warnings:
        say(f"warning: {warning}")
    result.require()
    say(f"{corpus}: the corpus matches its manifest (sha256 {result.manifest_sha256})")


def query(
    corpus: CorpusArgument,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT statement.")],
    json: JsonOption = False,
) -> None:
    """Query a corpus in SQL, read-only.

    Tables: pairs (raw and stylized), verdicts, columns (what the filter compares, with every score),
    mix, train, val, preferences.

    Example: stylear curate query corpus "select reason, count(*) from verdicts group by reason"
    """
    from stylear.curate import query as asker
    from stylear.curate import run as runner

    runner.require_recipe_path(corpus)
    rows = asker.query(corpus, sql)
    emit_json(rows) if json else emit_table(rows)


def report(corpus: CorpusArgument, json: JsonOption = False) -> None:
    """Draw the report of a finished corpus as one HTML page.

    It shows the funnel, the scores, images of each style, and the files with their hashes.

    Example: stylear curate report corpus
    """
    from stylear.curate import run as runner

    runner.require_recipe_path(corpus)
    page = runner.write_report(corpus)
    emit_json({"report": str(page)}) if json else print(f"report: {page}")
