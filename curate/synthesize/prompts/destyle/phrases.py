"""Phrases of style inside a caption: "in the style of Monet", "in pop art style", "by Monet"."""

from __future__ import annotations

from collections.abc import Sequence

from stylear.curate.synthesize.prompts.destyle.pieces import (
    ARTICLES,
    Cut,
    Description,
    match_description,
    match_names,
    match_style_of,
)
from stylear.curate.synthesize.prompts.destyle.words import StyleWords, Token, style_words

MADE = (
    *("done", "painted", "drawn", "rendered", "illustrated", "created", "depicted", "made"),
    "sketched",
)
# after these "as a painting" and "in oil painting" do not describe the picture
NOT_AS = ("dressed", "used", "known", "such", "same", "disguised", "serves", "served")
NOT_IN = (
    *("class", "classes", "course", "courses", "lesson", "lessons", "degree", "interest"),
    *("student", "students"),
)


def find_phrase(text: Sequence[Token]) -> Cut | None:
    """Find the first phrase of style after the first word: "in the style of", "by Monet".

    After a medium it describes a picture in the scene ("a wall with a painting by Monet") and does not count.
    """
    words = style_words()
    for position in range(1, len(text)):
        word, end = text[position].word, 0
        if words.media.match(text, position - 1):
            return None
        if word == "in":
            end = match_style_of(text, position, words) or _match_in_style(text, position, words)
        elif word == "by":
            named, known = match_names(text, position + 1, words)
            end = named if known else 0
        elif word == "as" and text[position - 1].word not in NOT_AS:
            description = _match_after_article(text, position + 1, words)
            end = description.end if description.medium and description.end == len(text) else 0
        elif word == "trending":
            end = position + words.tags.match(text, position)
        if end > position:
            start = position - (text[position - 1].word in MADE)
            return Cut(text[start - 1].end if start else text[0].start, text[end - 1].end)
    return None


def _match_in_style(text: Sequence[Token], position: int, words: StyleWords) -> int:
    """The end of "in pop art style", or of "in oil painting" at the end of a text."""
    description = _match_after_article(text, position + 1, words)
    begins = (
        position + 1 + (text[position + 1].word in (*ARTICLES, "the"))
        if description.end
        else position
    )
    if description.end - begins >= 2 and text[description.end - 1].word in ("style", "styled"):
        return description.end
    before = text[position - 1].word
    allowed = before not in NOT_IN and (before in MADE or not before.endswith("ed"))
    several = description.end - begins >= 2 and begins == position + 1
    return (
        description.end
        if description.medium and several and description.end == len(text) and allowed
        else 0
    )


def _match_after_article(text: Sequence[Token], position: int, words: StyleWords) -> Description:
    if position < len(text) and text[position].word in (*ARTICLES, "the"):
        position += 1
    description = match_description(text, position, words)
    return description if description.end > position else description._replace(end=0, medium=False)
