"""Heads: the medium that a caption begins with, unless the picture is a thing in the scene."""

from __future__ import annotations

from collections.abc import Sequence

from stylear.curate.synthesize.prompts.destyle.pieces import (
    ARTICLES,
    Cut,
    match_description,
    match_names,
)
from stylear.curate.synthesize.prompts.destyle.words import StyleWords, Token, style_words

LINKS = ("of", "depicting", "showing", "portraying", "featuring", "illustrating")
# after these a verb no longer belongs to the picture
CLAUSES = ("that", "who", "which", "whose", "while", "as", "where", "when", "because", "and")
TELLS = ("shows", "depicts", "features", "portrays", "captures", "displays")
# states of a picture; "a photo of a dog is running" is about the dog
STATES = ("hanging", "sitting", "lying", "laying", "leaning", "standing", "resting", "being")
OF_THE = [["the", period] for period in ("day", "week", "month", "year")]  # "picture of the day"
# "a pixel art exhibition"
NOT_ALONE = ("exhibition", "gallery", "class", "show", "game", "video", "museum", "book", "style")


def find_head(text: Sequence[Token]) -> Cut | None:
    """Find the medium that a caption begins with: "An oil painting of", "This photo shows", "a pixel art"."""
    words, position = style_words(), 0
    if [token.word for token in text[:2]] in (["this", "is"], ["here", "is"]):
        position = 2
    determiner = text[position].word if position < len(text) else ""
    article = determiner in ARTICLES
    first = position + (article or determiner in ("the", "this"))
    description = match_description(text, first, words)
    after, last = description.end, text[description.end].word if description.end < len(text) else ""
    if (
        description.medium
        and last in TELLS
        and not words.verbs.match(text, after + 1)
        and text[after + 1 :]
    ):
        return Cut(text[0].start, text[after + 1].start)
    if determiner in ("the", "this"):
        return None
    if description.medium and (link := _match_link(text, after, words)):
        if [token.word for token in text[link : link + 2]] in OF_THE:
            return None
        if _is_thing(text[link:], words, drawn=not description.photograph):
            return None
        end = text[link].start if link < len(text) else text[-1].end
        return Cut(
            text[0].start,
            end,
            _format_framing(text[position].word if article else "", description.framing),
        )
    bare = description.end - first
    if (
        bare and description.technique and words.framings.match(text, description.end)
    ):  # "a watercolor portrait"
        is_thing = _is_thing(text[description.end :], words, drawn=True)
        return None if is_thing else Cut(text[first].start, text[description.end].start)
    if (
        bare
        and bare == words.adjectives.match(text, first)
        and last not in ("", *NOT_ALONE, *LINKS)
    ):
        return Cut(text[first].start, text[after].start)
    return None


def _match_link(text: Sequence[Token], position: int, words: StyleWords) -> int:
    """The index after "of", or after "by <artist> of"; 0 if neither is at `position`."""
    if position < len(text) and text[position].word == "by":
        position = match_names(text, position + 1, words)[0]
    return position + 1 if position < len(text) and text[position].word in LINKS else 0


def _is_thing(tokens: Sequence[Token], words: StyleWords, *, drawn: bool) -> bool:
    """Whether the text after "a painting of" says that the painting itself is in the scene."""
    if words.objects.occurs_in(tokens):
        return True
    clause = next((i for i, token in enumerate(tokens) if token.word in CLAUSES), len(tokens))
    for position in range(clause):
        after = tokens[position + 1].word if position + 1 < len(tokens) else ""
        if words.verbs.match(tokens, position) and (not after.endswith("ing") or after in STATES):
            return True
    on = [i for i, token in enumerate(tokens) if token.word in ("on", "across")]
    return drawn and any(words.surfaces.occurs_in(tokens[i + 1 : i + 5]) for i in on)


def _format_framing(article: str, framing: str) -> str:
    """What replaces a head: its framing ("portrait"), with the right article if the head had one."""
    if not framing:
        return ""
    if not article:
        return f"{framing} "
    return f"{'an' if framing[0] in 'aeiou' else 'a'} {framing} "
