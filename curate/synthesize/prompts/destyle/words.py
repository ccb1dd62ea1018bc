"""The words of style, from words.txt, and finding them in a caption, the longest first."""

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
    """One word of a text: where it stands, and how it is looked up."""

    start: int
    end: int
    word: str  # lower case, without accents
    name: bool  # begins with a capital


@lru_cache(maxsize=64)  # each rule asks for the same parts of a caption
def tokens(text: str) -> tuple[Token, ...]:
    """The words of a text; what stands between them (spaces, hyphens) does not count."""
    return tuple(Token(*m.span(), fold(m[0]), m[0][0].isupper()) for m in WORD.finditer(text))


def fold(word: str) -> str:
    """A word as it is looked up."""
    if not word.isascii():
        marks = unicodedata.normalize("NFKD", word.replace("’", "'"))
        word = "".join(c for c in marks if not unicodedata.combining(c))
    return word.lower()


class Phrases:
    """Phrases of one or more words, found at a place of a text."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for phrase in phrases:
            words = tuple(token.word for token in tokens(phrase))
            self._by_first.setdefault(words[0], []).append(words)
        for same in self._by_first.values():
            same.sort(key=len, reverse=True)

    def at(self, text: Sequence[Token], place: int) -> int:
        """How many words the longest phrase has that begins at `place`; 0 for none."""
        if place >= len(text):
            return 0
        first = text[place].word
        same = self._by_first.get(first)
        if same is None:
            same = self._by_first.get(first[:-2], []) if first.endswith("'s") else []
        for words in same:
            last = place + len(words) - 1
            if (
                last < len(text)
                and text[last].word in (words[-1], f"{words[-1]}'s")
                and all(text[place + i].word == word for i, word in enumerate(words[:-1]))
            ):
                return len(words)
        return 0

    def within(self, text: Sequence[Token]) -> bool:
        """Whether one of them stands anywhere in a text."""
        return any(self.at(text, place) for place in range(len(text)))


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
    """The word list that is shipped, read once."""
    found: dict[str, list[str]] = {name: [] for name in SECTIONS}
    framed: dict[tuple[str, ...], str] = {}
    section = ""
    for line in FILE.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            phrase, arrow, stays = line.partition(" => ")
            found[section].append(phrase)
            if arrow:
                framed[tuple(token.word for token in tokens(phrase))] = stays
    return StyleWords(**{name: Phrases(found[name]) for name in SECTIONS}, framed=framed)
