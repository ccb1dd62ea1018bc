"""Types of settings that are written in YAML or flags in a form of their own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator

from stylear.curate.corpus.object_store import corpus_path


def _parse_corpus(value: Any) -> Path:
    """A folder or a URL. Raises ValueError for anything else, with the reason if a URL is invalid."""
    if not isinstance(value, (str, Path)):
        raise ValueError("expected a folder or a URL")
    return corpus_path(value)


def parse_size(value: Any) -> tuple[int, int]:
    """(height, width) in pixels of a text such as "512x768". Raises ValueError for anything else."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", value if isinstance(value, str) else "")
    if match is None:
        raise ValueError("expected HEIGHTxWIDTH in pixels, e.g. 512x768")
    return int(match[1]), int(match[2])


def format_size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


Corpus = Annotated[Path, PlainValidator(_parse_corpus), PlainSerializer(str)]
Size = Annotated[tuple[int, int], PlainValidator(parse_size), PlainSerializer(format_size)]
Features = Annotated[
    Literal["cache", "compute"],
    Field(
        description="Style features: kept on disk, or computed ahead of each step; they outgrow the images"
        " (ours)."
    ),
]


def _parse_range(value: Any) -> Any:
    """A number, [low, high] or "low:high" as a range; a number is a range of one value."""
    if isinstance(value, str):
        value = value.split(":")
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, (list, tuple)) else (value, value)


def _check_range(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"expected low:high with low at most high, got {value[0]}:{value[1]}")
    return value


NotNegative = Annotated[float, Field(ge=0)]
Sigma = Annotated[
    tuple[NotNegative, NotNegative],
    BeforeValidator(_parse_range),
    AfterValidator(_check_range),
    PlainSerializer(lambda value: value[0] if value[0] == value[1] else list(value)),
]


def _parse_blocks(value: Any) -> str | int:
    """none, all or a number k, for every k-th block."""
    if value in ("none", "all"):
        return str(value)
    if str(value).isdecimal() and int(value) > 0:
        return int(value)
    raise ValueError("expected none, all, or a number k for every k-th block")


Blocks = Annotated[str | int, PlainValidator(_parse_blocks)]
