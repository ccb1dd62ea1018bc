"""`stylear curate audit`, `query` and `report`: commands that read a finished corpus."""

from __future__ import annotations

from typing import Annotated

import typer

from stylear.console import JsonOption, SeedOption, emit_json, emit_table, emit_tables, say
from stylear.curate.cli.options import CorpusArgument, WorkersOption


def audit(
    corpus: CorpusArgument,
    sample: Annotated[
        float,
        typer.Option(
            "--sample",
            metavar="P",
            help="Read only this share of the images of each shard, at least one; 1 reads all.",
        ),
    ] = 1.0,
    seed: SeedOption = 0,
    decode: Annotated[
        bool,
        typer.Option("--decode", help="Also fully decode every image that is read."),
    ] = False,
    workers: WorkersOption = 0,
    json: JsonOption = False,
) -> None:
    """Verify a finished corpus against its manifest.

    Prints each check and what it proves, then every difference, then what was not examined. Modifies
    nothing. With --sample, tables, captions, records and all small files are still read in full. The exit
    code is 0 if there is no difference, else 1.

    Example: stylear curate audit corpus
    """
    from stylear.curate.audit import auditor
    from stylear.curate.audit.tars import Sampling

    if not 0 < sample <= 1:
        raise typer.BadParameter(
            f"expected a share above 0 and at most 1, found {sample:g}", param_hint="--sample"
        )
    result = auditor.audit(corpus, Sampling(sample, seed, decode), workers)
    if json:
        emit_json(result.summary())
    else:
        emit_tables([result.check_rows(), result.difference_rows()])
    for warning in result.warnings:
        say(f"warning: {warning}")
    for part in result.not_examined:
        say(f"not examined: {part}")
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
    """Write the report of a finished corpus: a folder that works offline.

    index.html shows the funnel, the scores, images of each style, licences, versions and files; its numbers
    link to pairs.html, which has every pair with its history.

    Example: stylear curate report corpus
    """
    from stylear.curate import run as runner

    runner.require_recipe_path(corpus)
    page = runner.write_report(corpus)
    emit_json({"report": str(page)}) if json else print(f"report: {page}")
