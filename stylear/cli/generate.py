"""`stylear generate`: images of prompts in the style of references."""

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
    ModelOption,
    NoiseOption,
    PromptOption,
    PromptsOption,
    TemperatureOption,
    TopKOption,
    read_prompts,
    read_references,
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
    prompt: PromptOption = [],  # noqa: B006
    prompts: PromptsOption = None,
    segment: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Mask the subject of the reference: mask.png, grabcut, or sam:sam-vit-b.",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option(metavar="N", help="Images of each style and prompt.", min=1)
    ] = 1,
    seed: SeedOption = 0,
    guidance: GuidanceOption = 4.0,
    top_k: TopKOption = 2000,
    temperature: TemperatureOption = 1.0,
    noise: NoiseOption = 0.3,
    size: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="Side of the images; by default the model's own."),
    ] = None,
    batch_size: BatchOption = 32,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Generate images of prompts in the style of references.

    Every style is combined with every prompt. --count N uses the seeds --seed to --seed + N - 1. An
    image depends only on its own style, prompt and seed, not on the others of its batch.

    Example: stylear generate --model mini-stylear --style mosaic --prompt "a cat" --out new
    """
    from stylear.model.open import open_model
    from stylear.sampling.gallery import GRID, check_free, write_gallery
    from stylear.sampling.generate import Sampling

    check_free(out, force=force)
    texts = read_prompts(prompt, prompts)
    references = read_references(style)
    opened = open_model(model, device=device, dtype=dtype)
    sampling = Sampling(
        guidance=guidance,
        top_k=top_k,
        temperature=temperature,
        noise=noise,
        size_px=size,
        batch_size=batch_size,
    )
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
            on_batch=bar.advance,
            on_warning=keep_warning,
        )
    if json:
        grid = str(out / GRID)
        emit_json({"out": str(out), "grid": grid, "pictures": lines, "warnings": warnings})
    else:
        emit_table([{"pictures": len(lines), "out": str(out), "grid": str(out / GRID)}])
