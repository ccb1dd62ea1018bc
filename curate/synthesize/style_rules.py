"""Where style stands in a caption: a head, a phrase inside, or a tag by itself.

Each rule names words to cut and never guesses from grammar alone: a word that is not in
style_words.txt ends it. What is meant as a thing in the scene ("a man drawing a picture", "a painting
of a dog hangs on a wall") has to stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from curate.synthesize.style_words import StyleWords, Token, style_words

ARTICLES = ("a", "an")
LINKS = ("of", "depicting", "showing", "portraying", "featuring", "illustrating")
TELLS = ("shows", "depicts", "features", "portrays", "captures", "displays")
CLAUSES = ("that", "who", "which", "whose", "while", "as", "where", "when", "because", "and")
ENDS = (  # of "in the style of <anything>"
    *("with", "on", "at", "in", "under", "over", "near", "by", "behind", "beside", "next", "from"),
    *("into", "onto", "against", "above", "below", "through", "is", "are", "was", "were"),
    *("that", "which", "who", "while"),
)
MADE = (
    *("done", "painted", "drawn", "rendered", "illustrated", "created", "depicted", "made"),
    "sketched",
)
NOT_AS = ("dressed", "used", "known", "such", "same", "disguised", "serves", "served")
NOT_IN = (
    *("class", "classes", "course", "courses", "lesson", "lessons", "degree", "interest"),
    *("student", "students"),
)
STATES = ("hanging", "sitting", "lying", "laying", "leaning", "standing", "resting", "being")
NOT_ALONE = ("exhibition", "gallery", "class", "show", "game", "video", "museum", "book", "style")


class Cut(NamedTuple):
    """Words to take out of a text, and what comes in their place."""

    start: int  # characters
    end: int
    instead: str = ""


def head_of(text: Sequence[Token]) -> Cut | None:
    """The medium that a caption begins with: "An oil painting of", "This photo shows", "a pixel art"."""
    words, place = style_words(), 0
    if [token.word for token in text[:2]] in (["this", "is"], ["here", "is"]):
        place = 2
    determiner = text[place].word if place < len(text) else ""
    article = determiner in ARTICLES
    first = place + (article or determiner in ("the", "this"))
    found = _described(text, first, words)
    after, last = found.end, text[found.end].word if found.end < len(text) else ""
    if found.medium and last in TELLS and not words.verbs.at(text, after + 1) and text[after + 1 :]:
        return Cut(text[0].start, text[after + 1].start)
    if determiner in ("the", "this"):
        return None
    if found.medium and (link := _link(text, after, words)):
        if _is_thing(text[link:], words, drawn=not found.photograph):
            return None
        end = text[link].start if link < len(text) else text[-1].end
        return Cut(text[0].start, end, _framing(text[place].word if article else "", found.framing))
    bare = found.end - first
    if bare and found.technique and words.framings.at(text, found.end):  # "a watercolor portrait"
        thing = _is_thing(text[found.end :], words, drawn=True)
        return None if thing else Cut(text[first].start, text[found.end].start)
    if bare and bare == words.adjectives.at(text, first) and last not in ("", *NOT_ALONE, *LINKS):
        return Cut(text[first].start, text[after].start)
    return None


class _Described(NamedTuple):
    """A run of words that describe a picture, "detailed oil painting": its end and what was in it."""

    end: int
    medium: bool  # ends with a medium
    photograph: bool
    technique: bool  # nothing but techniques and media
    framing: str


def _described(text: Sequence[Token], place: int, words: StyleWords) -> _Described:
    medium = photograph = False
    technique, framing, start = True, "", place
    while place < len(text):
        length, is_medium = 0, False
        for phrases in (words.media, words.techniques, words.artists):
            if (found := phrases.at(text, place)) > length:
                length, is_medium = found, phrases is words.media
        if length:
            photograph = is_medium and bool(words.photographs.at(text, place))
        elif length := max(words.qualities.at(text, place), words.degrees.at(text, place)):
            technique = False
        elif length := words.framings.at(text, place):
            rest = _described(text, place + length, words)
            if not rest.medium:  # the framing is a noun of its own here
                break
            key = tuple(token.word for token in text[place : place + length])
            framing = rest.framing or words.framed.get(key, "")
            return _Described(rest.end, True, rest.photograph, False, framing)
        elif text[place].word in ("style", "styled") and place > start:
            length = 1
        else:
            break
        medium, place = is_medium, place + length
    return _Described(place, medium, photograph, technique, framing)


def _link(text: Sequence[Token], place: int, words: StyleWords) -> int:
    """The place after "of", or after "by <artist> of"; 0 when neither stands at `place`."""
    if place < len(text) and text[place].word == "by":
        place = _names(text, place + 1, words)[0]
    return place + 1 if place < len(text) and text[place].word in LINKS else 0


def _is_thing(rest: Sequence[Token], words: StyleWords, *, drawn: bool) -> bool:
    """Whether what follows "a painting of" says that the painting itself is in the scene."""
    if words.objects.within(rest):
        return True
    clause = next((i for i, token in enumerate(rest) if token.word in CLAUSES), len(rest))
    for place in range(clause):
        after = rest[place + 1].word if place + 1 < len(rest) else ""
        if words.verbs.at(rest, place) and (not after.endswith("ing") or after in STATES):
            return True
    on = [i for i, token in enumerate(rest) if token.word in ("on", "across")]
    return drawn and any(words.surfaces.within(rest[i + 1 : i + 5]) for i in on)


def _framing(article: str, framing: str) -> str:
    if not framing:
        return ""
    if not article:
        return f"{framing} "
    return f"{'an' if framing[0] in 'aeiou' else 'a'} {framing} "


def _names(text: Sequence[Token], place: int, words: StyleWords) -> tuple[int, bool]:
    """The end of the artists' names that begin at `place`, and whether they are known."""
    known, at = False, place
    while at < len(text):
        if length := words.artists.at(text, at):
            known, at = True, at + length
        elif (not known and _is_name(text, at, words)) or (
            text[at].word == "and" and at > place and _is_name(text, at + 1, words)
        ):
            at += 1
        else:
            break
    return at, known


def _is_name(text: Sequence[Token], place: int, words: StyleWords) -> bool:
    if words.artists.at(text, place):
        return True
    return place < len(text) and text[place].name and not words.places.at(text, place)


def inside(text: Sequence[Token]) -> Cut | None:
    """The first phrase of style after the first word of a text: "in the style of", "by Monet"."""
    words = style_words()
    for place in range(1, len(text)):
        word, end = text[place].word, 0
        if word == "in":  # a picture in the scene may have a style
            end = 0 if words.media.within(text[:place]) else _style_of(text, place, words)
            end = end or _in_style(text, place, words)
        elif word == "by":
            names, known = _names(text, place + 1, words)
            end = names if known else 0
        elif word == "as" and text[place - 1].word not in NOT_AS:
            found = _after_article(text, place + 1, words)
            end = found.end if found.medium and found.end == len(text) else 0
        elif word == "trending":
            end = place + words.tags.at(text, place)
        if end > place:
            start = place - (text[place - 1].word in MADE)
            return Cut(text[start - 1].end if start else text[0].start, text[end - 1].end)
    return None


def _style_of(text: Sequence[Token], place: int, words: StyleWords) -> int:
    """The end of "in the style of <anything>"; 0 when it does not stand at `place`."""
    at = place + 1
    at += at < len(text) and text[at].word == "the"
    if [token.word for token in text[at : at + 2]] not in (["style", "of"], ["manner", "of"]):
        return 0
    end = at + 2
    if end < len(text) and text[end].word in ("his", "her", "its", "their", "my", "your"):
        return 0
    while end < len(text) and text[end].word not in ENDS:
        medium = words.media.at(text, end)
        if text[end].word.endswith("ing") and not medium:
            break
        if text[end].word == "and" and not (
            end + 1 < len(text)
            and (text[end + 1].name or _described(text, end + 1, words).end > end + 1)
        ):
            break
        end += medium or 1
    return end


def _in_style(text: Sequence[Token], place: int, words: StyleWords) -> int:
    """The end of "in pop art style", or of "in oil painting" at the end of a text."""
    found = _after_article(text, place + 1, words)
    begins = place + 1 + (text[place + 1].word in (*ARTICLES, "the")) if found.end else place
    if found.end - begins >= 2 and text[found.end - 1].word in ("style", "styled"):
        return found.end
    before = text[place - 1].word
    allowed = before not in NOT_IN and (before in MADE or not before.endswith("ed"))
    several = found.end - begins >= 2 and begins == place + 1
    return found.end if found.medium and several and found.end == len(text) and allowed else 0


def _after_article(text: Sequence[Token], place: int, words: StyleWords) -> _Described:
    if place < len(text) and text[place].word in (*ARTICLES, "the"):
        place += 1
    found = _described(text, place, words)
    return found if found.end > place else found._replace(end=0, medium=False)


Kind = Literal["style", "hint", ""]


def kind_of(text: Sequence[Token], *, listed: bool, alone: bool) -> Kind:
    """What a part of a caption is: style, style only in company of other style, or something else.

    `listed`: it is an entry between commas. `alone`: it is a sentence of its own ("Oil painting.").
    """
    words, place, seen = style_words(), 0, 0
    article = bool(text) and text[0].word in ARTICLES and listed
    style = words.tags.at(text, 0) == len(text) > 0
    while place < len(text):
        word = text[place].word
        if word == "in" and (end := _style_of(text, place, words)):
            return "style" if end == len(text) else ""
        names, known = _names(text, place + 1, words) if word == "by" else (0, False)
        medium, tag = words.media.at(text, place), words.tags.at(text, place)
        others = (words.hints, words.techniques, words.qualities, words.artists)
        length = max(medium, tag, *(phrases.at(text, place) for phrases in others))
        if names > place + 1:
            length, style, seen = names - place, style or known, seen + 1
        elif length:
            seen += 1
            style = style or (tag == length > 1)
            style = style or (medium > 0 and (seen > 1 or medium > 1) and not article)
        elif word in ("style", "styled") and seen:
            length, style = 1, True
        elif word in ARTICLES and place > 0 and text[place - 1].word != "in":
            return ""
        elif word in (*ARTICLES, "art") or (
            word in ("in", "with", "and") and 0 < place < len(text) - 1
        ):
            length = 1
        else:
            length = words.degrees.at(text, place) or words.framings.at(text, place)
        if not length:
            return ""
        place += length
    if not seen:
        return ""
    return "style" if style or alone else "hint"
