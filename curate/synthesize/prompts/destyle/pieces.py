"""Match pieces of style in a caption: a described medium, names of artists, "in the style of".

Each function matches from a word on and returns the end of the match; a word not in words.txt ends it.
`words` is always the word list, `text` the words of a part of a caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stylear.curate.synthesize.prompts.destyle.words import StyleWords, Token

ARTICLES = ("a", "an")
ENDS = (  # of "in the style of <anything>"
    *("with", "on", "at", "in", "under", "over", "near", "by", "behind", "beside", "next", "from"),
    *("into", "onto", "against", "above", "below", "through", "is", "are", "was", "were"),
    *("that", "which", "who", "while"),
)
POSSESSIVES = ("his", "her", "its", "their", "my", "your")


class Cut(NamedTuple):
    """A range of characters to remove from a text, and its replacement."""

    start: int  # characters
    end: int
    instead: str = ""


class Description(NamedTuple):
    """A run of words that describe a picture, "detailed oil painting": its end and what it contains."""

    end: int
    medium: bool  # ends with a medium
    photograph: bool
    technique: bool  # nothing but techniques and media
    framing: str


def match_description(text: Sequence[Token], place: int, words: StyleWords) -> Description:
    """Match the longest run of techniques, qualities, artists, framings and media at `place`."""
    medium = photograph = False
    technique, framing, start = True, "", place
    while place < len(text):
        length, is_medium = 0, False
        for phrases in (words.media, words.techniques, words.artists):
            if (found := phrases.match(text, place)) > length:
                length, is_medium = found, phrases is words.media
        if length:
            photograph = is_medium and bool(words.photographs.match(text, place))
        elif length := max(words.qualities.match(text, place), words.degrees.match(text, place)):
            technique = False
        elif length := words.framings.match(text, place):
            rest = match_description(text, place + length, words)
            if not rest.medium:  # the framing is a noun of its own here
                break
            key = tuple(token.word for token in text[place : place + length])
            framing = rest.framing or words.framed.get(key, "")
            return Description(rest.end, True, rest.photograph, False, framing)
        elif text[place].word in ("style", "styled") and place > start:
            length = 1
        else:
            break
        medium, place = is_medium, place + length
    return Description(place, medium, photograph, technique, framing)


def match_names(text: Sequence[Token], place: int, words: StyleWords) -> tuple[int, bool]:
    """Match artists' names at `place`: their end, and whether they are in the word list."""
    known, at = False, place
    while at < len(text):
        if length := words.artists.match(text, at):
            known, at = True, at + length
        elif (not known and _is_name(text, at, words)) or (
            text[at].word == "and" and at > place and _is_name(text, at + 1, words)
        ):
            at += 1
        else:
            break
    return at, known


def _is_name(text: Sequence[Token], place: int, words: StyleWords) -> bool:
    if words.artists.match(text, place):
        return True
    return place < len(text) and text[place].name and not words.places.match(text, place)


def match_style_of(text: Sequence[Token], place: int, words: StyleWords) -> int:
    """The end of "in the style of <anything>"; 0 if it is not at `place`."""
    at = place + 1
    at += at < len(text) and text[at].word == "the"
    if [token.word for token in text[at : at + 2]] not in (["style", "of"], ["manner", "of"]):
        return 0
    end = at + 2
    if end < len(text) and text[end].word in POSSESSIVES:
        return 0
    while end < len(text) and text[end].word not in ENDS:
        medium = words.media.match(text, end)
        if text[end].word.endswith("ing") and not medium:
            break
        if text[end].word == "and" and not (
            end + 1 < len(text)
            and (text[end + 1].name or match_description(text, end + 1, words).end > end + 1)
        ):
            break
        end += medium or 1
    return end
