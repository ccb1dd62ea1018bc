"""The words of style in words.txt, and matching them in a caption, the longest first."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("words.txt")
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
SECTIONS = (
    *("media", "photographs", "techniques", "qualities", "degrees", "framings", "adjectives"),
    *("tags", "hints", "artists", "places", "surfaces", "objects", "verbs"),
)


class Token(NamedTuple):
    """One word of a text: its position, and the form in which it is looked up."""

    start: int
    end: int
    word: str  # lower case, without accents
    name: bool  # begins with a capital


@lru_cache(maxsize=64)  # each rule asks for the same parts of a caption
def tokenize(text: str) -> tuple[Token, ...]:
    """The words of a text, without the spaces and hyphens between them."""
    return tuple(
        Token(*m.span(), normalize_word(m[0]), m[0][0].isupper()) for m in WORD.finditer(text)
    )


def normalize_word(word: str) -> str:
    """A word in lower case, without accents."""
    if not word.isascii():
        marks = unicodedata.normalize("NFKD", word.replace("’", "'"))
        word = "".join(c for c in marks if not unicodedata.combining(c))
    return word.lower()


class Phrases:
    """A set of phrases of one or more words."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for phrase in phrases:
            words = tuple(token.word for token in tokenize(phrase))
            self._by_first.setdefault(words[0], []).append(words)
        for same in self._by_first.values():
            same.sort(key=len, reverse=True)

    def match(self, text: Sequence[Token], position: int) -> int:
        """The number of words of the longest phrase at `position`; 0 for none."""
        if position >= len(text):
            return 0
        first = text[position].word
        same = self._by_first.get(first)
        if same is None:
            same = self._by_first.get(first[:-2], []) if first.endswith("'s") else []
        for words in same:
            last = position + len(words) - 1
            if (
                last < len(text)
                and text[last].word in (words[-1], f"{words[-1]}'s")
                and all(text[position + i].word == word for i, word in enumerate(words[:-1]))
            ):
                return len(words)
        return 0

    def occurs_in(self, text: Sequence[Token]) -> bool:
        """Whether a text contains one of the phrases."""
        return any(self.match(text, position) for position in range(len(text)))


class StyleWords(NamedTuple):
    """The sections of words.txt, each explained there."""

    media: Phrases
    photographs: Phrases
    techniques: Phrases
    qualities: Phrases
    degrees: Phrases
    framings: Phrases
    adjectives: Phrases
    tags: Phrases
    hints: Phrases
    artists: Phrases
    places: Phrases
    surfaces: Phrases
    objects: Phrases
    verbs: Phrases
    framed: dict[tuple[str, ...], str]  # words of a framing -> what stays of it


@cache
def style_words() -> StyleWords:
    """The shipped word list, read once."""
    sections: dict[str, list[str]] = {name: [] for name in SECTIONS}
    framed: dict[tuple[str, ...], str] = {}
    section = ""
    for line in FILE.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            phrase, arrow, stays = line.partition(" => ")
            sections[section].append(phrase)
            if arrow:
                framed[tuple(token.word for token in tokenize(phrase))] = stays
    return StyleWords(**{name: Phrases(sections[name]) for name in SECTIONS}, framed=framed)
