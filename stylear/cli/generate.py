"""`stylear generate`: images of prompts in the style of references."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from stylear.cli.options import (
    GUIDANCE,
    NOISE,
    REMOVAL,
    TEMPERATURE,
    TOP_K,
    BatchOption,
    DeviceOption,
    DtypeOption,
    ForceOption,
    ModelOption,
    PromptOption,
    PromptsOption,
    StyleGuidanceOption,
    read_prompts,
    read_references,
    read_size,
)
from stylear.console import Bar, JsonOption, SeedOption, emit_json, emit_table, say_warning


def generate(
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Output folder.")],
    style: Annotated[
        list[str],
        typer.Option(
            "--style",
            metavar="STYLE",
            help="A style: an image, a folder of images, or an embedded style's name.",
        ),
    ] = [],  # noqa: B006 - typer wants a list as the default of a repeated option
    reference: Annotated[
        list[str],
        typer.Option(
            "--reference",
            metavar="PICTURE[:WEIGHT]",
            help="A picture, folder or embedded style; several are averaged into one style.",
        ),
    ] = [],  # noqa: B006
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Settings and templates: released, released-control; other flags override them.",
        ),
    ] = None,
    prompt: PromptOption = [],  # noqa: B006
    prompts: PromptsOption = None,
    segment: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Mask the subject of the reference: mask.png, grabcut, or sam:sam-vit-b.",
        ),
    ] = None,
    removal: Annotated[float | None, REMOVAL] = None,
    control: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A depth map or segmentation to follow; needs a model trained with them.",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option(metavar="N", help="Images per style and prompt.", min=1)
    ] = 1,
    seed: SeedOption = 0,
    guidance: Annotated[float | None, GUIDANCE] = None,
    style_guidance: StyleGuidanceOption = None,
    top_k: Annotated[int | None, TOP_K] = None,
    temperature: Annotated[float | None, TEMPERATURE] = None,
    noise: Annotated[float | None, NOISE] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS",
            help="SIDE or WIDTHxHEIGHT; by default the model's own, or the nearest to the control image.",
        ),
    ] = None,
    batch_size: BatchOption = 32,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    speculate: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Draft N codes per pass and keep those that are accepted; 0 turns this off.",
            min=0,
        ),
    ] = 0,
    quantize: Annotated[
        str | None,
        typer.Option(metavar="int8", help="8-bit weights, for small GPUs."),
    ] = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Generate images from prompts in the style of references.

    Every style is combined with every prompt. All --reference options together are one more style, their
    weighted average. --count N uses the seeds --seed to --seed + N - 1. An image depends only on its own
    style, prompt and seed, not on the others in its batch.

    Example: stylear generate --model mini-stylear --style mosaic --prompt "a cat" --out new
    """
    from stylear.model.open import open_model
    from stylear.sampling.control import choose_size
    from stylear.sampling.gallery import GRID, check_free, load_control, write_gallery
    from stylear.sampling.presets import apply_templates, choose_sampling, get_preset

    check_free(out, force=force)
    texts = read_prompts(prompt, prompts)
    size_px = read_size(size)
    settings = None if preset is None else get_preset(preset)
    sampling = choose_sampling(
        settings,
        guidance=guidance,
        style_guidance=style_guidance,
        top_k=top_k,
        temperature=temperature,
        noise=noise,
        removal=removal,
        batch_size=batch_size,
        speculate=speculate,
    )
    references = read_references(style, reference)
    control_image = None if control is None else load_control(control)
    opened = open_model(model, device=device, dtype=dtype, quantize=quantize)
    if settings is not None:
        opened = apply_templates(opened, settings)
    if size_px is None and control_image is not None:
        size_px = choose_size(opened, control_image.picture)
    sampling = replace(sampling, size_px=size_px)
    seeds = range(seed, seed + count)
    total = max(1, len(references)) * len(texts) * count
    warnings: list[str] = []

    def keep_warning(message: str) -> None:
        warnings.append(message)
        say_warning(message)

    with Bar("generate", total=total, unit="images") as bar:
        lines = write_gallery(
            opened,
            references,
            texts,
            seeds,
            out,
            sampling,
            segment=segment,
            control=control_image,
            on_batch=bar.advance,
            on_warning=keep_warning,
        )
    if json:
        grid = str(out / GRID)
        emit_json({"out": str(out), "grid": grid, "pictures": lines, "warnings": warnings})
    else:
        emit_table([{"pictures": len(lines), "out": str(out), "grid": str(out / GRID)}])
