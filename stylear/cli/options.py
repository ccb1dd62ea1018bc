"""Options that `generate` and `evaluate` share, and what they read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stylear.errors import UsageError

if TYPE_CHECKING:
    from stylear.sampling.references import Reference

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


def read_prompts(given: list[str], file: Path | None) -> list[str]:
    from stylear.sampling.references import load_prompts

    texts = [*given, *(load_prompts(file) if file is not None else [])]
    if not texts:
        raise UsageError(
            "--prompt: expected at least one prompt, found none",
            hint='give --prompt "a red apple" or --prompts FILE',
        )
    return list(dict.fromkeys(texts))


def read_references(sources: list[str]) -> list[Reference]:
    from stylear.sampling.references import load_styles

    found = [reference for source in sources for reference in load_styles(source)]
    for i, reference in enumerate(found):
        if any(other.id == reference.id for other in found[:i]):
            raise UsageError(
                f"{reference.path}: expected styles of different names, found two {reference.id!r}",
                hint="rename one of the files",
            )
    return found
