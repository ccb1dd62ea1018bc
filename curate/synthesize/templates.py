"""Templates: prompts such as "{animal} on {place}", filled from lists of words.

A placeholder is a name in braces and nothing else: no attribute, index or format is ever looked up.
Every combination comes at most once, in an order that the seed decides, and none is kept in memory.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from hashlib import shake_128
from itertools import islice
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from curate.fetch.captions import MAX_CAPTION, clean_text
from stylear.errors import RecipeError

if TYPE_CHECKING:
    from curate.recipe.synthesis import SynthesizeSettings

Words = Mapping[str, Sequence[str]]
NAME = re.compile(r"[a-z][a-z0-9_]*")
BRACED = re.compile(r"\{([^{}]*)\}")
MAX_PROMPTS = 1_000_000  # made when the recipe does not say how many
TRIES = (
    100  # combinations drawn for each prompt asked for; some belong to a split without references
)


class Template(NamedTuple):
    """A prompt with placeholders: the text around them, and the name in each gap."""

    around: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def distinct(self) -> tuple[str, ...]:
        """The names, each once: a placeholder that stands twice has the same word twice."""
        return tuple(dict.fromkeys(self.names))

    def size(self, words: Words) -> int:
        """How many combinations there are."""
        return prod(len(words[name]) for name in self.distinct)

    def fill(self, number: int, words: Words) -> str:
        """The combination of a number below `size`."""
        chosen: dict[str, str] = {}
        for name in self.distinct:
            number, place = divmod(number, len(words[name]))
            chosen[name] = words[name][place]
        gaps = [chosen[name] for name in self.names]
        return "".join(text + gap for text, gap in zip(self.around, [*gaps, ""], strict=True))


def parse_template(text: str, key: str, known: Sequence[str]) -> Template:
    """The template in a text. Raises RecipeError, naming `key`, for anything in braces but a known name."""
    pieces = BRACED.split(text)
    around, names = tuple(pieces[::2]), tuple(pieces[1::2])
    hint = f"words are given for: {', '.join(known) or 'nothing'}; add a list to synthesize.words"
    for name in names:
        if not NAME.fullmatch(name):
            raise RecipeError(
                f"{key}: expected placeholders such as {{animal}} (small letters, digits, _),"
                f" found {{{name}}}",
                hint="a placeholder names a list of synthesize.words and nothing else",
            )
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            raise RecipeError(
                f"{key}: synthesize.words has no list for {{{name}}}",
                hint=f"did you mean {{{close[0]}}}?" if close else hint,
            )
    if any("{" in part or "}" in part for part in around):
        raise RecipeError(
            f"{key}: expected every brace to be part of a placeholder, found {text[:80]!r}",
            hint="write placeholders as {name}; other braces have no place in a prompt",
        )
    if not clean_text("".join(around), MAX_CAPTION) and not names:
        raise RecipeError(f"{key}: expected a prompt, found an empty text")
    return Template(around, names)


def parse_all(templates: Sequence[str], words: Mapping[str, object]) -> list[Template]:
    """All templates of a recipe. Raises RecipeError, also for a list of words that none of them uses."""
    known = sorted(words)
    found = [
        parse_template(text, f"synthesize.templates.{i}", known) for i, text in enumerate(templates)
    ]
    for name in known:
        if not any(name in template.names for template in found):
            raise RecipeError(
                f"synthesize.words.{name}: no template has a placeholder {{{name}}}",
                hint="remove the list, or use it in synthesize.templates",
            )
    return found


def fill(spec: SynthesizeSettings, seed: int) -> Iterator[str]:
    """Prompts of a recipe's templates in turn, each combination at most once, in seeded order.

    Raises RecipeError when they are too many to make all of them, SourceError for a file of words.
    """
    words = {name: read_words(name, given) for name, given in spec.words.items()}
    found = parse_all(spec.templates, words)
    total = sum(template.size(words) for template in found)
    if spec.contents is None and total > MAX_PROMPTS:
        raise RecipeError(
            f"synthesize.templates: expected at most {MAX_PROMPTS:,} prompts, found {total:,}"
            " combinations",
            hint="say how many in synthesize.contents",
        )
    draws = min(total, MAX_PROMPTS if spec.contents is None else TRIES * spec.contents, sys.maxsize)
    waiting = [
        (template, shuffled(template.size(words), f"{seed} {text}"))
        for template, text in zip(found, spec.templates, strict=True)
    ]
    return (_checked(text) for text in islice(_in_turn(waiting, words), draws))


def _in_turn(waiting: list[tuple[Template, Iterator[int]]], words: Words) -> Iterator[str]:
    """One prompt of each template after another, as long as there are any."""
    while waiting:
        left = []
        for template, numbers in waiting:
            number = next(numbers, None)
            if number is not None:
                left.append((template, numbers))
                yield template.fill(number, words)
        waiting = left


def _checked(prompt: str) -> str:
    text = clean_text(prompt, MAX_CAPTION + 1)
    if len(text) > MAX_CAPTION:
        raise RecipeError(
            f"synthesize.templates: expected prompts of at most {MAX_CAPTION} characters,"
            f" found {text[:60]!r}...",
            hint="shorten the template or its words",
        )
    return text


def read_words(name: str, given: Path | Sequence[str]) -> list[str]:
    """The words of one list, each once and made safe to store."""
    from curate.synthesize.prompts import read_lines

    key = f"synthesize.words.{name}"
    lines = read_lines(given, key, "word") if isinstance(given, Path) else iter(given)
    words = list(dict.fromkeys(text for line in lines if (text := clean_text(line, MAX_CAPTION))))
    if not words:
        raise RecipeError(f"{key}: expected at least one word, found none")
    return words


def shuffled(size: int, name: str) -> Iterator[int]:
    """Each number below `size` once, in an order that `name` decides; nothing is kept in memory.

    A Feistel network of four rounds permutes the next larger power of four; what falls outside is
    permuted again until it falls inside (Black and Rogaway 2002, "cycle walking").
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
