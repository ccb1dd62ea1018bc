"""`stylear models`: list, download and verify models."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stylear.console import DryRunOption, JsonOption, emit_json, emit_table, say

app = typer.Typer(
    help="List, download and verify models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_models(json: JsonOption = False) -> None:
    """List all models by name: purpose, size, licence, location.

    shipped: part of the package. fetched: in the models directory, which is $STYLEAR_MODELS or
    stylear/models in your cache. partial: the download was interrupted. missing: `stylear models fetch`
    downloads it. Sizes with ~ are approximate. --json adds the users, source, files and terms of each.

    Example: stylear models list
    """
    from stylear.weights.catalog import list_models
    from stylear.weights.store import models_dir

    rows = list_models()
    if json:
        emit_json(rows)
        return
    columns = ("name", "purpose", "size", "licence", "state")
    emit_table([{column: row[column] for column in columns} for row in rows])
    say(f"models directory: {models_dir()}")


@app.command("fetch")
def fetch_models(
    name: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Names of registered models.")
    ],
    update: Annotated[
        bool,
        typer.Option("--update", help="Accept files that differ from weights.lock."),
    ] = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Download registered models and verify their files.

    An interrupted download continues where it stopped. weights.lock in the models directory records the
    sha256 of each file, which later downloads must match. Gated models need HF_TOKEN; HF_ENDPOINT names
    a mirror of the hub.

    Example: stylear models fetch sam-vit-b clip-vit-l-14-laion2b
    """
    from stylear.weights.fetch import fetch_model, plan_fetch
    from stylear.weights.registry import format_bytes, get_model
    from stylear.weights.store import fetched_path

    count = "to_fetch" if dry_run else "fetched"
    rows: list[dict[str, Any]] = []
    for model in {each: get_model(each) for each in name}.values():
        done = plan_fetch(model, update=update) if dry_run else fetch_model(model, update=update)
        row: dict[str, Any] = {
            "name": model.name,
            "files": len(done.listing.files),
            "bytes": done.listing.bytes,
        }
        row |= {count: done.to_fetch, "revision": done.listing.revision or None}
        rows.append(row | {"licence": model.licence, "path": str(fetched_path(model))})
    if json:
        emit_json(rows)
        return
    for row in rows:  # for people
        row |= {key: format_bytes(row[key]) for key in ("bytes", count)}
        row["revision"] = row["revision"] and row["revision"][:12]
    emit_table(rows)


@app.command("verify")
def verify_models(
    write: Annotated[
        bool,
        typer.Option("--write", help="Record the hashes of the shipped files as they are now."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Verify the hashes of shipped and downloaded models.

    Example: stylear models verify
    """
    from stylear.weights import store as fetched
    from stylear.weights.catalog import verify_shipped, write_hashes

    if write:
        say(f"recorded: {write_hashes()}")
    counts = {"shipped": verify_shipped(), "fetched": fetched.verify_fetched()}
    if json:
        emit_json({"files": sum(counts.values()), **counts, "ok": True})
    else:
        print(f"{counts['shipped']} shipped and {counts['fetched']} fetched files as recorded")
