"""Options of `generate` and `evaluate`, and reading their prompts and references."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stylear.errors import UsageError

if TYPE_CHECKING:
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
GuidanceOption = Annotated[
    float,
    typer.Option(
        "--guidance",
        metavar="SCALE",
        help="Guidance scale of prompt and style; 1 turns guidance off.",
    ),
]
TopKOption = Annotated[
    int, typer.Option("--top-k", metavar="K", help="Sample from the K most likely image codes.")
]
TemperatureOption = Annotated[
    float,
    typer.Option(
        "--temperature", metavar="T", help="Sampling temperature; 0 takes the most likely code."
    ),
]
NoiseOption = Annotated[
    float,
    typer.Option(
        "--noise",
        metavar="SIGMA",
        help="Noise on the style tokens; lower values copy more of the reference.",
    ),
]
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


def read_prompts(given: list[str], file: Path | None) -> list[str]:
    """The prompts of the command line and of a file, each once. Raises UsageError if there are none."""
    from stylear.sampling.references import load_prompts

    texts = [*given, *(load_prompts(file) if file is not None else [])]
    if not texts:
        raise UsageError(
            "--prompt: expected at least one prompt, found none",
            hint='give --prompt "a red apple" or --prompts FILE',
        )
    return list(dict.fromkeys(texts))


def read_references(sources: list[str]) -> list[Reference]:
    """The style references. Raises UsageError if two have the same name."""
    from stylear.sampling.references import load_styles

    references = [reference for source in sources for reference in load_styles(source)]
    for i, reference in enumerate(references):
        if any(other.id == reference.id for other in references[:i]):
            raise UsageError(
                f"{reference.path}: expected styles of different names, found two {reference.id!r}",
                hint="rename one of the files",
            )
    return references
