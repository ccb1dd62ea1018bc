"""`stylear models`: what a model's name can mean, fetched and verified."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stylear.console import DryRunOption, JsonOption, emit_json, emit_table, say

app = typer.Typer(
    help="The models that ship with the package, and published ones to fetch by name.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_models(json: JsonOption = False) -> None:
    """List the models that a name can mean: what for, size, licence, where.

    shipped: in the package. fetched: in the models directory, $STYLEAR_MODELS or stylear/models in
    your cache. partial: a fetch was interrupted. missing: `stylear models fetch` brings it.
    A size with ~ is rough. --json has more: what needs a model, its source, files and terms.

    Example: stylear models list
    """
    from stylear.weights.catalog import list_models
    from stylear.weights.store import models_dir

    rows = list_models()
    if json:
        emit_json(rows)
        return
    columns = ("name", "for", "size", "licence", "where")
    emit_table([{column: row[column] for column in columns} for row in rows])
    say(f"models directory: {models_dir()}")


@app.command("fetch")
def fetch_models(
    name: Annotated[list[str], typer.Argument(help="Names of registered models.")],
    update: Annotated[
        bool,
        typer.Option("--update", help="Take what is there now, though weights.lock has another."),
    ] = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Download registered models; every file is checked before it gets its name.

    A killed fetch goes on where it was. weights.lock in the models directory records each file
    with its sha256, and a later fetch must find the same. Models whose terms must be accepted
    need HF_TOKEN. HF_ENDPOINT names a mirror of the hub.

    Example: stylear models fetch sam-vit-b clip-vit-l-14-laion2b
    """
    from stylear.weights.fetch import fetch, plan
    from stylear.weights.registry import get, human
    from stylear.weights.store import path_in

    count = "to_fetch" if dry_run else "fetched"
    rows: list[dict[str, Any]] = []
    for model in {each: get(each) for each in name}.values():
        done = plan(model, update=update) if dry_run else fetch(model, update=update)
        row: dict[str, Any] = {
            "name": model.name,
            "files": len(done.listing.files),
            "bytes": done.listing.bytes,
        }
        row |= {count: done.to_fetch, "revision": done.listing.revision or None}
        rows.append(row | {"licence": model.licence, "path": str(path_in(model))})
    if json:
        emit_json(rows)
        return
    for row in rows:  # for people
        row |= {key: human(row[key]) for key in ("bytes", count)}
        row["revision"] = row["revision"] and row["revision"][:12]
    emit_table(rows)


@app.command("verify")
def verify_models(
    write: Annotated[
        bool,
        typer.Option("--write", help="Record the shipped files as they are; after training anew."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Re-hash the shipped models and all that was fetched against what is recorded.

    Example: stylear models verify
    """
    from stylear.weights import store as fetched
    from stylear.weights.catalog import verify, write_hashes

    if write:
        say(f"recorded: {write_hashes()}")
    counts = {"shipped": verify(), "fetched": fetched.verify()}
    if json:
        emit_json({"files": sum(counts.values()), **counts, "ok": True})
    else:
        print(f"{counts['shipped']} shipped and {counts['fetched']} fetched files as recorded")
