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


def match_description(text: Sequence[Token], position: int, words: StyleWords) -> Description:
    """Match the longest run of techniques, qualities, artists, framings and media at `position`."""
    medium = photograph = False
    technique, framing, start = True, "", position
    while position < len(text):
        length, is_medium = 0, False
        for phrases in (words.media, words.techniques, words.artists):
            if (match_length := phrases.match(text, position)) > length:
                length, is_medium = match_length, phrases is words.media
        if length:
            photograph = is_medium and bool(words.photographs.match(text, position))
        elif length := max(
            words.qualities.match(text, position), words.degrees.match(text, position)
        ):
            technique = False
        elif length := words.framings.match(text, position):
            following = match_description(text, position + length, words)
            if not following.medium:  # the framing is a noun of its own here
                break
            key = tuple(token.word for token in text[position : position + length])
            framing = following.framing or words.framed.get(key, "")
            return Description(following.end, True, following.photograph, False, framing)
        elif text[position].word in ("style", "styled") and position > start:
            length = 1
        else:
            break
        medium, position = is_medium, position + length
    return Description(position, medium, photograph, technique, framing)


def match_names(text: Sequence[Token], position: int, words: StyleWords) -> tuple[int, bool]:
    """Match artists' names at `position`: their end, and whether they are in the word list."""
    known, at = False, position
    while at < len(text):
        if length := words.artists.match(text, at):
            known, at = True, at + length
        elif (not known and _is_name(text, at, words)) or (
            text[at].word == "and" and at > position and _is_name(text, at + 1, words)
        ):
            at += 1
        else:
            break
    return at, known


def _is_name(text: Sequence[Token], position: int, words: StyleWords) -> bool:
    if words.artists.match(text, position):
        return True
    return position < len(text) and text[position].name and not words.places.match(text, position)


def match_style_of(text: Sequence[Token], position: int, words: StyleWords) -> int:
    """The end of "in the style of <anything>"; 0 if it is not at `position`."""
    at = position + 1
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
