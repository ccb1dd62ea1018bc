"""Tags: parts of a caption that are style on their own, between commas or as a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from stylear.curate.synthesize.prompts.destyle.pieces import ARTICLES, match_names, match_style_of
from stylear.curate.synthesize.prompts.destyle.words import Token, style_words

Kind = Literal["style", "hint", ""]


def classify_part(text: Sequence[Token], *, listed: bool, alone: bool) -> Kind:
    """Classify a part of a caption: style, a hint (style only next to other style), or neither ("").

    `listed`: it is an entry between commas. `alone`: it is a sentence of its own ("Oil painting.").
    """
    words, position, seen, after_medium = style_words(), 0, 0, False
    article = bool(text) and text[0].word in ARTICLES and listed
    style = words.tags.match(text, 0) == len(text) > 0
    while position < len(text):
        word = text[position].word
        if word == "in" and (end := match_style_of(text, position, words)):
            return "style" if end == len(text) else ""
        named, known = match_names(text, position + 1, words) if word == "by" else (0, False)
        medium, tag = words.media.match(text, position), words.tags.match(text, position)
        others = (words.hints, words.techniques, words.qualities, words.artists)
        length = max(medium, tag, *(phrases.match(text, position) for phrases in others))
        if named > position + 1:
            length, seen = named - position, seen + 1
            style = style or (not article and (known or after_medium))
        elif length:
            seen, after_medium = seen + 1, medium > 0
            style = style or (tag == length > 1)
            style = style or (medium > 0 and (seen > 1 or medium > 1) and not article)
        elif word in ("style", "styled") and seen:
            length, style = 1, True
        elif word in ARTICLES and position > 0 and text[position - 1].word != "in":
            return ""
        elif word in (*ARTICLES, "art") or (
            word in ("in", "with", "and") and 0 < position < len(text) - 1
        ):
            length = 1
        else:
            length = words.degrees.match(text, position) or words.framings.match(text, position)
        if not length:
            return ""
        position += length
    if not seen:
        return ""
    return "style" if style or alone else "hint"
