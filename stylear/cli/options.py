"""Options of `generate` and `evaluate`, and reading their prompts and references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stylear.errors import UsageError

if TYPE_CHECKING:
    from stylear.sampling.context import Size
    from stylear.sampling.references import Reference

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="A training run, a model directory, or the name of a mini model.",
    ),
]
PromptOption = Annotated[
    list[str],
    typer.Option("--prompt", metavar="TEXT", help="A prompt; can be repeated."),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="A text file with one prompt per line."),
]
GUIDANCE = typer.Option(
    "--guidance",
    metavar="SCALE",
    help="Guidance scale of prompt and style, 4 by default; 1 turns guidance off.",
)
STYLE_GUIDANCE = typer.Option(
    "--style-guidance",
    metavar="SCALE",
    help="A guidance scale for the style alone, so that --guidance is the text's; not set by default.",
)
TOP_K = typer.Option(
    "--top-k", metavar="K", help="Sample from the K most likely image codes, 2000 by default."
)
TEMPERATURE = typer.Option(
    "--temperature",
    metavar="T",
    help="Sampling temperature, 1 by default; 0 takes the most likely code.",
)
NOISE = typer.Option(
    "--noise",
    metavar="SIGMA",
    help="Noise on the style tokens, 0.3 by default; lower values copy more of the reference.",
)
REMOVAL = typer.Option(
    "--removal",
    metavar="STRENGTH",
    help="How much of the masked subject is removed from the style, 0 to 1; 0.8 by default.",
    min=0,
    max=1,
)
GuidanceOption = Annotated[float, GUIDANCE]
StyleGuidanceOption = Annotated[float | None, STYLE_GUIDANCE]
TopKOption = Annotated[int, TOP_K]
TemperatureOption = Annotated[float, TEMPERATURE]
NoiseOption = Annotated[float, NOISE]
BatchOption = Annotated[
    int,
    typer.Option("--batch-size", metavar="N", help="Images generated in one batch.", min=1),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1 ..."),
]
DtypeOption = Annotated[
    str,
    typer.Option("--dtype", metavar="DTYPE", help="auto, float32, bfloat16 or float16."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite the contents of --out.")]


def read_prompts(prompts: list[str], file: Path | None) -> list[str]:
    """The prompts of the command line and of a file, each once. Raises UsageError if there are none."""
    from stylear.sampling.references import load_prompts

    texts = [*prompts, *(load_prompts(file) if file is not None else [])]
    if not texts:
        raise UsageError(
            "--prompt: expected at least one prompt, found none",
            hint='give --prompt "a red apple" or --prompts FILE',
        )
    return list(dict.fromkeys(texts))


def read_size(text: str | None) -> Size | None:
    """A size in pixels: `768`, or `1024x512` as width and height. Raises UsageError for anything else."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise UsageError(f"--size: expected SIDE or WIDTHxHEIGHT in pixels, found {text!r}")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def read_references(sources: list[str], blended: Sequence[str] = ()) -> list[Reference]:
    """The style references, and one more of those that are blended. Raises UsageError if two share a name."""
    from stylear.sampling.references import load_blend, load_styles

    references = [reference for source in sources for reference in load_styles(source)]
    if blended:
        references.append(load_blend(blended))
    for i, reference in enumerate(references):
        if any(other.id == reference.id for other in references[:i]):
            raise UsageError(
                f"{reference.path}: expected styles of different names, found two {reference.id!r}",
                hint="rename one of the files",
            )
    return references
