"""Brace patterns as WebDataset and shells read them: `{000000..000123}.tar`, `{train,val}.tar`."""

from __future__ import annotations

import re

from stylear.errors import SourceError

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")
LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])")
MAX_NAMES = 1_000_000


def expand_braces(pattern: str) -> list[str]:
    """The names that a pattern expands to, in its order; braces without `..` or a comma are kept.

    Raises SourceError when there are more than a million.
    """
    names = [pattern]
    while True:
        expanded: list[str] = []
        for name in names:
            expanded += _expand_first(name)
            if len(expanded) > MAX_NAMES:
                raise _too_many_error(pattern)
        if expanded == names:
            return list(dict.fromkeys(names))
        names = expanded


def _expand_first(pattern: str) -> list[str]:
    """The pattern with its first innermost braces replaced by each of their items."""
    for match in BRACES.finditer(pattern):
        items = _read_items(pattern, match[1])
        if items:
            before, after = pattern[: match.start()], pattern[match.end() :]
            return [f"{before}{item}{after}" for item in items]
    return [pattern]


def _read_items(pattern: str, inner: str) -> list[str]:
    if numbers := RANGE.fullmatch(inner):
        first, last = int(numbers[1]), int(numbers[2])
        step = abs(int(numbers[3] or 1)) or 1
        if abs(last - first) // step >= MAX_NAMES:
            raise _too_many_error(pattern)
        padded = any(
            len(n.lstrip("-")) > 1 and n.lstrip("-")[0] == "0" for n in numbers.group(1, 2)
        )
        width = max(len(numbers[1]), len(numbers[2])) if padded else 0
        end = last + (1 if last >= first else -1)
        return [f"{n:0{width}d}" for n in range(first, end, step if last >= first else -step)]
    if letters := LETTERS.fullmatch(inner):
        first, last = ord(letters[1]), ord(letters[2])
        step = 1 if last >= first else -1
        return [chr(n) for n in range(first, last + step, step)]
    return inner.split(",") if "," in inner else []


def _too_many_error(pattern: str) -> SourceError:
    return SourceError(f"{pattern}: expected at most {MAX_NAMES:,} names, found more")
