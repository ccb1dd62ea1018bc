"""`stylear evaluate`: metrics of models over styles, prompts and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stylear.cli.options import (
    BatchOption,
    DeviceOption,
    DtypeOption,
    ForceOption,
    GuidanceOption,
    NoiseOption,
    PromptOption,
    PromptsOption,
    StyleGuidanceOption,
    TemperatureOption,
    TopKOption,
    read_prompts,
    read_references,
)
from stylear.console import Bar, JsonOption, SeedOption, emit_json, emit_table, say
from stylear.errors import UsageError


def evaluate(
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            metavar="MODEL",
            help="A run, model directory or mini model; can be repeated.",
        ),
    ],
    styles: Annotated[
        list[str],
        typer.Option(
            "--styles",
            metavar="STYLES",
            help="An image, a folder of images, an embedded style, or mini for all embedded styles.",
        ),
    ],
    prompt: PromptOption = [],  # noqa: B006
    prompts: PromptsOption = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Use only styles that no model was trained on.")
    ] = False,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Images per style and prompt.", min=1)
    ] = 2,
    seed: SeedOption = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Write the images, scores and a grid here."),
    ] = None,
    clip: Annotated[
        str, typer.Option(metavar="MODEL", help="CLIP model for the metrics.")
    ] = "mini-clip",
    csd: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSD checkpoint; adds the column csd.")
    ] = None,
    dino: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="DINOv2 model directory; adds the column dino."),
    ] = None,
    guidance: GuidanceOption = 4.0,
    style_guidance: StyleGuidanceOption = None,
    top_k: TopKOption = 2000,
    temperature: TemperatureOption = 1.0,
    noise: NoiseOption = 0.3,
    batch_size: BatchOption = 32,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    force: ForceOption = False,
    review: Annotated[
        bool,
        typer.Option(
            "--review",
            help="Afterwards let people compare the images on a local page; needs --out.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Evaluate models over styles, prompts and seeds.

    Columns are means with 95% intervals. clip_t: image and prompt. clip_i: image and reference, which
    rewards copied content too, so never read it alone. csd: image and reference, by a style model.
    dino: image and reference, mostly their content. texture: style without content. harmonic: harmonic
    mean of clip_t and texture. leakage: how much closer the image is to its reference's content than to
    other contents; 0 means no leakage.

    Example: stylear evaluate --model mini-ar --model RUN --styles mini --held-out --prompt 'a cat'
    """
    from stylear.device import pick_device
    from stylear.encoders.clip import ClipEncoder
    from stylear.encoders.dino import DinoEncoder
    from stylear.encoders.style import CsdEncoder
    from stylear.evaluation.evaluate import evaluate as measure
    from stylear.model.open import open_model
    from stylear.sampling.gallery import check_free

    if review and out is None:
        raise UsageError(
            "--review: expected --out FOLDER, where the answers are kept, found none",
            hint="give --out FOLDER; `stylear curate review --from FOLDER --summary` shows results",
        )
    if out is not None:
        check_free(out, force=force)
    texts = read_prompts(prompt, prompts)
    references = read_references(styles)
    if held_out:
        references = [reference for reference in references if reference.held_out]
        if not references:
            raise UsageError(
                "--held-out: expected references marked `held_out`, found none",
                hint="mark them in the references.json beside the pictures, or use --styles mini",
            )
    device_name = pick_device(device)
    judge = ClipEncoder.open(clip, device=device_name)
    style_judge = None if csd is None else CsdEncoder.open(csd, device=device_name)
    dino_judge = None if dino is None else DinoEncoder.open(dino, device=device_name)
    total = len(model) * len(references) * len(texts) * seeds
    with Bar("evaluate", total=total, unit="images") as bar:
        evaluation = measure(
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
            style_guidance=style_guidance,
            top_k=top_k,
            temperature=temperature,
            noise=noise,
        )
    if out is not None:
        say(f"grid: {evaluation.write(out)}")
    if json:
        emit_json(evaluation.summary())
    else:
        emit_table(evaluation.table())
    if review and out is not None:
        from stylear.curate.cli.review import serve

        serve(out, "prefer", "anonymous", None, seed, 0, is_corpus=False)
