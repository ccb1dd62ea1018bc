"""`stylear curate export`: a finished corpus in the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stylear.console import DryRunOption, JsonOption, emit_json, emit_table, say
from stylear.curate.cli.options import CorpusArgument
from stylear.errors import UsageError


def export(
    corpus: CorpusArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="croissant, huggingface, parquet, folders, datacomp, sha256 or eu-summary.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option("--out", metavar="DIR", help="A local folder, new or empty."),
    ],
    licence: Annotated[
        str | None,
        typer.Option("--license", help="License of the whole corpus: an SPDX identifier or a URL."),
    ] = None,
    creator: Annotated[
        str | None, typer.Option("--creator", help="The publisher of the corpus.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="The page where the corpus is published.")
    ] = None,
    published: Annotated[
        str | None,
        typer.Option("--published", metavar="DATE", help="Date of publication, as YYYY-MM-DD."),
    ] = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Write a finished corpus in the format of another tool, with its provenance.

    The folder appears only when complete; the same corpus gives the same bytes. While exporting, every table
    is checked against the manifest and every image against its hash.

    Example: stylear curate export corpus --to huggingface --out corpus-hf
    """
    from stylear.curate.export import exporter
    from stylear.curate.export.declared import Declared

    if "://" in out:
        raise UsageError(
            f"--out {out}: expected a local folder, found a URL",
            hint="export to a folder, then copy it with the tools of the store",
        )
    declared = Declared(licence, creator, url, published)
    done = exporter.export(corpus, to, Path(out), declared, dry_run=dry_run)
    emit_json(done.summary()) if json else emit_table([done.row()])
    for warning in done.warnings:
        say(f"warning: {warning}")
