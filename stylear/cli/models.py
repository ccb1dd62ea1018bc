"""`stylear models`: list, download, verify and convert models."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stylear.console import DryRunOption, JsonOption, emit_json, emit_table, say, say_warning

app = typer.Typer(
    help="List, download, verify and convert models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_models(json: JsonOption = False) -> None:
    """List all models by name: purpose, size, licence, location.

    shipped: part of the package. fetched: in the models directory, which is $STYLEAR_MODELS or
    stylear/models in your cache. partial: the download was interrupted. missing: `stylear models fetch`
    downloads it. Sizes with ~ are approximate. --json adds source, files, terms and what needs each model.

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


@app.command("import")
def import_model(
    base: Annotated[
        str,
        typer.Option(
            "--base",
            metavar="MODEL",
            help="The base model: lumina-mgpt-7b-768, or a path.",
        ),
    ],
    released: Annotated[
        str,
        typer.Option(
            "--released",
            metavar="FOLDER",
            help="Folder with image_proj.pth and model.safetensors (or a PEFT adapter).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="Model directory to write.")],
    clip: Annotated[
        str, typer.Option(metavar="MODEL", help="The style encoder that the weights expect.")
    ] = "clip-vit-h-14-laion2b",
    heads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Attention heads of the resampler, which its weights do not record; 12 in the release.",
            min=1,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Import StyleAR's released weights as a model directory.

    The directory holds LoRA and resampler and names its base by path and hash. Neither the base nor the
    style encoder is loaded; both are needed to generate.

    Example: stylear models import --base lumina-mgpt-7b-768 --released stylear-release --out stylear-7b
    """
    from stylear.model.released import import_released

    done = import_released(base, released, out, clip=clip, heads=heads).to_dict()
    if json:
        emit_json(done)
    else:
        emit_table([done])


class ExportFormat(StrEnum):
    """The formats of `models export`."""

    released = "released"
    peft = "peft"


@app.command("export")
def export_model(
    model: Annotated[
        str,
        typer.Option("--model", metavar="MODEL", help="A LoRA training run or model directory."),
    ],
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="released: image_proj.pth and model.safetensors. peft: a PEFT adapter, image_proj.pth.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder to write.")],
    base_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The base named in a PEFT adapter, such as a hub id."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files in --out.")] = False,
    json: JsonOption = False,
) -> None:
    """Export LoRA and resampler in StyleAR's release format or as a PEFT adapter.

    Tensors keep their values and their dtype; `stylear models import` reads both formats.

    Example: stylear models export --model runs/sft --format released --out to-publish
    """
    from stylear.model.open import find_model
    from stylear.model.released import export_peft, export_released
    from stylear.sampling.gallery import check_free

    check_free(out, force=force)
    if format is ExportFormat.peft:
        done = export_peft(find_model(model), out, base_name)
    else:
        done = export_released(find_model(model), out)
        if not done.is_as_released:
            say_warning(
                "the authors' inference code expects rank 4 and 12 heads of 64; "
                f"to import this export: --heads {done.resampler.heads}"
            )
    if json:
        emit_json(done.to_dict())
    else:
        emit_table([done.to_dict()])
