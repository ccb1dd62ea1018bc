"""Templates: prompts such as "{animal} on {place}", parsed.

A placeholder is a name in braces and nothing else: no attribute, index or format is ever looked up.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

from stylear.curate.corpus.captions import MAX_CAPTION, clean_text
from stylear.errors import RecipeError

Words = Mapping[str, Sequence[str]]


NAME = re.compile(r"[a-z][a-z0-9_]*")


BRACED = re.compile(r"\{([^{}]*)\}")


class Template(NamedTuple):
    """A prompt with placeholders: the texts around them, and their names."""

    around: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def distinct(self) -> tuple[str, ...]:
        """The distinct names; a repeated placeholder gets the same word each time."""
        return tuple(dict.fromkeys(self.names))

    def size(self, words: Words) -> int:
        """The number of combinations."""
        return prod(len(words[name]) for name in self.distinct)

    def fill(self, number: int, words: Words) -> str:
        """The prompt of the combination with this number, which is below `size`."""
        chosen: dict[str, str] = {}
        for name in self.distinct:
            number, index = divmod(number, len(words[name]))
            chosen[name] = words[name][index]
        gaps = [chosen[name] for name in self.names]
        return "".join(text + gap for text, gap in zip(self.around, [*gaps, ""], strict=True))


def parse_template(text: str, key: str, known: Sequence[str]) -> Template:
    """Parse a template. Raises RecipeError, naming `key`, for anything in braces but a known name."""
    pieces = BRACED.split(text)
    around, names = tuple(pieces[::2]), tuple(pieces[1::2])
    hint = f"words are given for: {', '.join(known) or 'nothing'}; add a list to synthesize.words"
    for name in names:
        if not NAME.fullmatch(name):
            raise RecipeError(
                f"{key}: expected placeholders such as {{animal}} (lower-case letters, digits, _),"
                f" found {{{name}}}",
                hint="a placeholder is the name of a list in synthesize.words",
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
            hint="write placeholders as {name}; a prompt cannot contain other braces",
        )
    if not clean_text("".join(around), MAX_CAPTION) and not names:
        raise RecipeError(
            f"{key}: expected a prompt, found an empty text",
            hint="write the prompt, or remove the entry",
        )
    return Template(around, names)


def parse_templates(templates: Sequence[str], words: Mapping[str, object]) -> list[Template]:
    """Parse all templates of a recipe. Raises RecipeError, also for a word list that none of them uses."""
    known = sorted(words)
    parsed = [
        parse_template(text, f"synthesize.templates.{i}", known) for i, text in enumerate(templates)
    ]
    for name in known:
        if not any(name in template.names for template in parsed):
            raise RecipeError(
                f"synthesize.words.{name}: no template has a placeholder {{{name}}}",
                hint="remove the list, or use it in synthesize.templates",
            )
    return parsed
