"""`stylear`: the root of the command line. Heavy imports happen inside commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylear.console import (
    Bar,
    DryRunOption,
    JsonOption,
    SeedOption,
    emit_json,
    emit_table,
    run_app,
    say,
)
from stylear.errors import UsageError

if TYPE_CHECKING:
    from stylear.sampling.references import Reference

app = typer.Typer(
    name="stylear",
    help="Build a style corpus you can defend; train a style-aligned image model on it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(
    help="The models that ship with the package, and published ones to fetch by name.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(models_app, name="models")

ModelOption = Annotated[
    str, typer.Option("--model", help="A training run, a model directory, or a mini model's name.")
]
PromptOption = Annotated[list[str], typer.Option("--prompt", help="A prompt; may be repeated.")]
PromptsOption = Annotated[
    Path | None, typer.Option("--prompts", help="A text file with one prompt a line.")
]
GuidanceOption = Annotated[
    float, typer.Option("--guidance", help="Strength of the prompt and the style; 1 is none.")
]
TopKOption = Annotated[int, typer.Option("--top-k", help="How many image codes may be drawn.")]
TemperatureOption = Annotated[
    float,
    typer.Option("--temperature", help="Below 1 safer, above 1 wilder; 0 takes the likeliest."),
]
NoiseOption = Annotated[
    float,
    typer.Option("--noise", help="Noise on the style tokens; less copies the reference more."),
]
BatchOption = Annotated[int, typer.Option("--batch-size", help="Pictures drawn together.", min=1)]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite what lies in --out.")]


@app.command()
def generate(
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", help="The directory to write pictures to.")],
    style: Annotated[
        list[str],
        typer.Option("--style", help="A picture, a folder of them, or an embedded style's name."),
    ] = [],  # noqa: B006 - typer wants a list as the default of a repeated option
    prompt: PromptOption = [],  # noqa: B006
    prompts: PromptsOption = None,
    segment: Annotated[
        str | None,
        typer.Option(
            help="Take the subject out of the style: mask.png, grabcut, or sam:sam-vit-b."
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Pictures of each style and prompt.", min=1)] = 1,
    seed: SeedOption = 0,
    guidance: GuidanceOption = 4.0,
    top_k: TopKOption = 2000,
    temperature: TemperatureOption = 1.0,
    noise: NoiseOption = 0.3,
    size: Annotated[
        int | None, typer.Option(help="Side of the picture in pixels; the model's own if left out.")
    ] = None,
    batch_size: BatchOption = 32,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Draw prompts in the style of reference pictures.

    Every style is combined with every prompt; --count draws seeds --seed, --seed + 1, and so on.
    A picture depends on its own style, prompt and seed alone.

    Example: stylear generate --model mini-stylear --style mosaic --prompt "a cat" --out new
    """
    from stylear.model.open import open_model
    from stylear.sampling.gallery import GRID, Sampling, check_free, write_gallery

    check_free(out, force=force)
    texts = _prompts(prompt, prompts)
    references = _references(style)
    opened = open_model(model, device=device, dtype=dtype)
    sampling = Sampling(guidance, top_k, temperature, noise, size, batch_size)
    seeds = range(seed, seed + count)
    total = max(1, len(references)) * len(texts) * count
    with Bar("generate", total=total, unit="pictures") as bar:
        lines = write_gallery(
            opened,
            references,
            texts,
            seeds,
            out,
            sampling,
            segment=segment,
            on_batch=bar.advance,
        )
    if json:
        emit_json({"out": str(out), "grid": str(out / GRID), "pictures": lines})
    else:
        emit_table([{"pictures": len(lines), "out": str(out), "grid": str(out / GRID)}])


@app.command()
def evaluate(
    model: Annotated[
        list[str],
        typer.Option("--model", help="A run, model directory or mini model; may be repeated."),
    ],
    styles: Annotated[
        list[str],
        typer.Option(
            "--styles", help="A folder of pictures, a picture, an embedded style, or mini."
        ),
    ],
    prompt: PromptOption = [],  # noqa: B006
    prompts: PromptsOption = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only styles that no model was trained on.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="Pictures of each style and prompt.", min=1)] = 2,
    seed: SeedOption = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write pictures, scores and a grid here.")
    ] = None,
    clip: Annotated[str, typer.Option(help="The CLIP that judges.")] = "mini-clip",
    csd: Annotated[
        Path | None, typer.Option(help="A CSD checkpoint, for the style column csd.")
    ] = None,
    dino: Annotated[
        Path | None, typer.Option(help="A DINOv2 model directory, for the column dino.")
    ] = None,
    guidance: GuidanceOption = 4.0,
    top_k: TopKOption = 2000,
    temperature: TemperatureOption = 1.0,
    noise: NoiseOption = 0.3,
    batch_size: BatchOption = 32,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Measure models on styles x prompts x seeds, with 95% intervals.

    clip_t: picture and prompt. clip_i: picture and reference (content counts too, so never alone).
    csd: style, by a model made for that. dino: picture and reference, what they show above all.
    texture: style without content. harmonic: of clip_t and texture. leakage: how much nearer the
    picture is to its reference's content than to other contents; 0 is none.

    Example: stylear evaluate --model mini-ar --model RUN --styles mini --held-out --prompt 'a cat'
    """
    from stylear.device import pick_device
    from stylear.encoders.clip import ClipEncoder
    from stylear.encoders.dino import DinoEncoder
    from stylear.encoders.style import CsdEncoder
    from stylear.evaluation.evaluate import evaluate as measure
    from stylear.model.open import open_model
    from stylear.sampling.gallery import check_free

    if out is not None:
        check_free(out, force=force)
    texts = _prompts(prompt, prompts)
    references = _references(styles)
    if held_out:
        references = [reference for reference in references if reference.held_out]
        if not references:
            raise UsageError(
                "--held-out: expected references marked `held_out`, found none",
                hint="mark them in the references.json beside the pictures, or use --styles mini",
            )
    place = pick_device(device)
    judge = ClipEncoder.open(clip, device=place)
    style_judge = None if csd is None else CsdEncoder.open(csd, device=place)
    dino_judge = None if dino is None else DinoEncoder.open(dino, device=place)
    total = len(model) * len(references) * len(texts) * seeds
    with Bar("evaluate", total=total, unit="pictures") as bar:
        found = measure(
            (open_model(name, device=device, dtype=dtype) for name in model),
            references,
            texts,
            range(seed, seed + seeds),
            clip=judge,
            csd=style_judge,
            dino=dino_judge,
            on_batch=bar.advance,
            batch_size=batch_size,
            guidance=guidance,
            top_k=top_k,
            temperature=temperature,
            noise=noise,
        )
    if out is not None:
        say(f"grid: {found.write(out)}")
    if json:
        emit_json(found.summary())
    else:
        emit_table(found.table())


@models_app.command("list")
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


@models_app.command("fetch")
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


@models_app.command("verify")
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


def _prompts(given: list[str], file: Path | None) -> list[str]:
    from stylear.sampling.references import load_prompts

    texts = [*given, *(load_prompts(file) if file is not None else [])]
    if not texts:
        raise UsageError(
            "--prompt: expected at least one prompt, found none",
            hint='give --prompt "a red apple" or --prompts FILE',
        )
    return list(dict.fromkeys(texts))


def _references(sources: list[str]) -> list[Reference]:
    from stylear.sampling.references import load_styles

    found = [reference for source in sources for reference in load_styles(source)]
    for i, reference in enumerate(found):
        if any(other.id == reference.id for other in found[:i]):
            raise UsageError(
                f"{reference.path}: expected styles of different names, found two {reference.id!r}",
                hint="rename one of the files",
            )
    return found


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option("--out", help="Folder of everything the demo makes; resumable.")
    ] = Path("demo-output"),
) -> None:
    """The whole story offline: corpus, audit, training, pictures; ends with a page to open.

    Example: stylear demo --out demo-output
    """
    from stylear.demo import story as story

    story.run(out)


def mount() -> typer.Typer:
    """The app with the `curate` and `train` groups mounted."""
    from stylear.curate.cli import app as curate_app
    from stylear.train.cli import app as train_app

    app.add_typer(curate_app, name="curate")
    app.add_typer(train_app, name="train")
    return app


def main() -> None:
    """Entry point of the console script."""
    run_app(mount())
