"""`stylear curate forget`: remove pairs from a corpus permanently."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stylear.console import DryRunOption, JsonOption, emit_json, emit_table, say
from stylear.curate.cli.options import CorpusArgument


def forget(
    corpus: CorpusArgument,
    key: Annotated[list[str], typer.Option("--key", help="The key of a pair; repeatable.")] = [],  # noqa: B006
    url: Annotated[
        list[str], typer.Option("--url", help="A URL or another source; repeatable.")
    ] = [],  # noqa: B006
    sha256: Annotated[
        list[str],
        typer.Option(
            "--sha256", help="SHA-256 of the image bytes, original or stored; repeatable."
        ),
    ] = [],  # noqa: B006
    domain: Annotated[
        list[str],
        typer.Option("--domain", help="All URLs of a domain, including subdomains; repeatable."),
    ] = [],  # noqa: B006
    phash_of: Annotated[
        list[Path],
        typer.Option(
            "--phash-of", metavar="FILE", help="All images similar to this one; repeatable."
        ),
    ] = [],  # noqa: B006
    distance: Annotated[
        int,
        typer.Option("--distance", min=0, max=32, help="Maximum Hamming distance of --phash-of."),
    ] = 4,
    list_: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE", help="File with one key, SHA-256 or URL per line."),
    ] = None,
    runs: Annotated[
        list[Path],
        typer.Option(
            "--runs",
            metavar="DIR",
            help="List the models in this folder that were trained on the corpus.",
        ),
    ] = [],  # noqa: B006
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Remove pairs permanently from shards, scores, training data, preference pairs and the report.

    Images synthesised from a raw pair are removed with it. Only files that contain such pairs are rewritten;
    hashes are kept, so that later runs leave these pairs out. If it is interrupted, the same command (or
    any run) finishes it. The exit code is 0 even if nothing matches: such pairs are then refused later.

    Example: stylear curate forget corpus --domain example.org --dry-run
    """
    from dataclasses import replace

    from stylear.curate import forget as forgetter
    from stylear.curate import run as runner
    from stylear.curate.forget.models import find_models
    from stylear.curate.forget.request import Request, read_request_list

    runner.require_recipe_path(corpus)
    request = Request(
        tuple(key), tuple(url), tuple(sha256), tuple(domain), tuple(phash_of), distance
    )
    if list_ is not None:
        more = read_request_list(list_)
        request = replace(
            request,
            keys=request.keys + more.keys,
            sources=request.sources + more.sources,
            sha256=request.sha256 + more.sha256,
        )
    models = find_models(corpus, runs)
    result = forgetter.forget_pairs(corpus, request, dry_run=dry_run)
    if json:
        emit_json(result.summary() | {"dry_run": dry_run, "models": models})
        return
    what = "pairs that would be forgotten" if dry_run else "pairs forgotten"
    say(f"{what}: {len(result.selection.keys)}")
    emit_table(result.rows())
    if result.selection.copies:
        say(
            f"other pairs with the same image bytes, which stay: {result.selection.copies}"
            " (--sha256 removes them too)"
        )
    if models:
        print()
        emit_table(models)
    elif runs:
        say("no model below --runs was trained on this corpus")
