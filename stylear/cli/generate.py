"""`stylear generate`: prompts in the style of reference pictures."""

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
    texts = read_prompts(prompt, prompts)
    references = read_references(style)
    opened = open_model(model, device=device, dtype=dtype)
    sampling = Sampling(guidance, top_k, temperature, noise, size, batch_size)
    seeds = range(seed, seed + count)
    total = max(1, len(references)) * len(texts) * count
    warnings: list[str] = []

    def keep_warning(message: str) -> None:
        warnings.append(message)
        say_warning(message)

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
            on_warning=keep_warning,
        )
    if json:
        grid = str(out / GRID)
        emit_json({"out": str(out), "grid": grid, "pictures": lines, "warnings": warnings})
    else:
        emit_table([{"pictures": len(lines), "out": str(out), "grid": str(out / GRID)}])
