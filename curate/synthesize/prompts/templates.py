"""Templates: prompts such as "{animal} on {place}", filled from lists of words.

A placeholder is a name in braces and nothing else: attributes, indices and formats are never evaluated.
Every combination comes at most once, in a seeded order, and none is kept in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from hashlib import shake_128
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from stylear.curate.corpus.captions import MAX_CAPTION, clean_text
from stylear.curate.recipe.templates import Template, Words, parse_templates
from stylear.curate.synthesize.prompts.lines import read_lines
from stylear.errors import RecipeError

if TYPE_CHECKING:
    from stylear.curate.recipe.synthesis import SynthesizeSettings

MAX_PROMPTS = 1_000_000  # if the recipe does not set synthesize.contents
TRIES = 100  # combinations tried for each prompt; some belong to a split without references


def fill_templates(spec: SynthesizeSettings, seed: int) -> Iterator[str]:
    """Prompts of a recipe's templates, round-robin, each combination at most once, in seeded order.

    Raises RecipeError if there are too many combinations, SourceError for a word file.
    """
    words, templates = read_templates(spec)
    total = sum(template.size(words) for template in templates)
    if spec.contents is None and total > MAX_PROMPTS:
        raise RecipeError(
            f"synthesize.templates: expected at most {MAX_PROMPTS:,} prompts, found {total:,}"
            " combinations",
            hint="set their number with synthesize.contents",
        )
    draws = min(total, MAX_PROMPTS if spec.contents is None else TRIES * spec.contents, sys.maxsize)
    waiting = [
        (template, shuffle_range(template.size(words), f"{seed} {text}"))
        for template, text in zip(templates, spec.templates, strict=True)
    ]
    return (_check_prompt(text) for text in islice(_round_robin(waiting, words), draws))


def read_templates(spec: SynthesizeSettings) -> tuple[Words, list[Template]]:
    """The lists of words and the templates of a recipe."""
    words = {name: read_words(name, source) for name, source in spec.words.items()}
    return words, parse_templates(spec.templates, words)


def count_combinations(spec: SynthesizeSettings) -> int:
    """How many prompts the templates of a recipe can give."""
    words, templates = read_templates(spec)
    return sum(template.size(words) for template in templates)


def _round_robin(waiting: list[tuple[Template, Iterator[int]]], words: Words) -> Iterator[str]:
    """One prompt of each template in turn until all are exhausted."""
    while waiting:
        left = []
        for template, numbers in waiting:
            number = next(numbers, None)
            if number is not None:
                left.append((template, numbers))
                yield template.fill(number, words)
        waiting = left


def _check_prompt(prompt: str) -> str:
    text = clean_text(prompt, MAX_CAPTION + 1)
    if len(text) > MAX_CAPTION:
        raise RecipeError(
            f"synthesize.templates: expected prompts of at most {MAX_CAPTION} characters,"
            f" found {text[:60]!r}...",
            hint="shorten the template or its words",
        )
    return text


def read_words(name: str, source: Path | Sequence[str]) -> list[str]:
    """The distinct words of one list, made safe to store."""
    key = f"synthesize.words.{name}"
    lines = read_lines(source, key, "word") if isinstance(source, Path) else iter(source)
    words = list(dict.fromkeys(text for line in lines if (text := clean_text(line, MAX_CAPTION))))
    if not words:
        raise RecipeError(f"{key}: expected at least one word, found none")
    return words


def shuffle_range(size: int, name: str) -> Iterator[int]:
    """Each number below `size` once, in an order seeded by `name`, in constant memory.

    A Feistel network of four rounds permutes the next larger power of four; numbers outside the range are
    permuted again until they fall inside (Black and Rogaway 2002, "cycle walking").
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = [f"{name} {step} ".encode() for step in range(4)]
    for number in range(size):
        while True:
            left, right = number >> half, number & ((1 << half) - 1)
            for key in keys:
                drawn = shake_128(key + str(right).encode()).digest((half + 7) // 8)
                left, right = right, left ^ (int.from_bytes(drawn, "big") & ((1 << half) - 1))
            number = left << half | right
            if number < size:
                break
        yield number
