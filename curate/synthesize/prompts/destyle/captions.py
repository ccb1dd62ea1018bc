"""De-stylising: a caption without the words of style, so that style comes from the image alone.

As StyleShot does with its training captions: "an oil painting of a dog, 8k" becomes "a dog". The words
are in words.txt, the rules in heads.py, phrases.py and tags.py. What is meant as a thing in the scene
("a man drawing a picture", "a painting of a dog hangs on a wall") has to stay, and what the list does not
know is left alone.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stylear.curate.synthesize.prompts.destyle.heads import head_of
from stylear.curate.synthesize.prompts.destyle.phrases import inside
from stylear.curate.synthesize.prompts.destyle.pieces import Cut
from stylear.curate.synthesize.prompts.destyle.tags import kind_of
from stylear.curate.synthesize.prompts.destyle.words import style_words, tokens

# between the parts of a caption: commas, sentence ends, dashes with spaces around them
BETWEEN = re.compile(r"( ?(?:(?<!\d),|,(?!\d)|[;|]|\.(?= |$)|:(?= )| [-–—](?= )) ?)")
BRACKETS = re.compile(r" ?[(\[]([^()\[\]]*)[)\]]")
OPENING = ('"', "'", "“", "‘", "«", "(", "[")
WEIGHT = re.compile(r":[0-9.]+$")  # "(masterpiece:1.2)"
MAX_PASSES = 8  # each takes at least one word out; what needs more is no caption


class Destyled(NamedTuple):
    """A caption without its words of style, and these, as they stood."""

    text: str  # empty when nothing else was there
    removed: tuple[str, ...]


def destyle(caption: str) -> Destyled:
    """`caption` without words of style; unchanged, to the byte, when there are none.

    Applying it again changes nothing. The rules are ours, after what StyleShot says of its captions.
    """
    text, removed = caption, list[str]()
    for _ in range(MAX_PASSES):
        before = text
        text = _once(text, removed)
        if text == before:
            break
        text = _tidy(text, caption)
    return Destyled(text, tuple(removed))


class _Part(NamedTuple):
    """What stands between two separators, and the separator before it."""

    separator: str
    text: str


def _once(text: str, removed: list[str]) -> str:
    """One pass: what is left; `text` itself when there was nothing to remove."""
    before, whole = len(removed), text
    text = BRACKETS.sub(lambda found: _without_bracket(found, removed), text)
    pieces = BETWEEN.split(text)
    parts = [_Part("", pieces[0])] + [
        _Part(*pair) for pair in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    closing = parts.pop().separator if len(parts) > 1 and not parts[-1].text else ""
    kinds = [_kind(parts, i) for i in range(len(parts))]
    if all(kinds):
        if "style" not in kinds:
            return text  # "Charcoal", "Salvador Dalí": nothing says that it is about a style
        removed.append(text)
        return ""
    first = next(i for i, kind in enumerate(kinds) if not kind)
    shorter, cuts = _cut(parts[first].text, head=True)
    headed = shorter != parts[first].text
    runs = _runs(kinds)
    kept: list[_Part] = []
    stronger = ""  # of the separators before what was removed
    for i, part in enumerate(parts):
        if i in runs and _removable(parts, kinds, runs[i], headed=first if headed else None):
            removed.append(part.text)
            stronger = stronger or (part.separator if "." in part.separator else "")
            continue
        if not kinds[i]:
            part_text, cuts = (shorter, cuts) if i == first else _cut(part.text, head=False)
            removed += cuts
            part = part._replace(text=part_text)
        if stronger and "." not in part.separator:
            part = part._replace(separator=stronger)
        kept.append(part)
        stronger = ""
    if len(removed) == before:
        return whole
    told = [part for part in kept if part.text]
    if not told:
        return ""
    closing = closing or stronger.strip()
    return told[0].text + "".join(p.separator + p.text for p in told[1:]) + closing


def _kind(parts: list[_Part], place: int) -> str:
    """Whether a part is style: a sentence of its own, or an entry of an enumeration."""
    following = parts[place + 1].separator if place + 1 < len(parts) else ""
    listed = "," in parts[place].separator + following
    words = tokens(parts[place].text)
    kind = kind_of(words, listed=listed, alone=len(parts) > 1 and not listed)
    if kind and words[0].word == "in":  # the style of a picture in the scene?
        for part in parts[:place]:
            earlier = tokens(part.text)
            if style_words().media.within(earlier) and not kind_of(
                earlier, listed=True, alone=False
            ):
                return ""
    return kind


def _runs(kinds: list[str]) -> dict[int, range]:
    """The run of parts that are style, for each part in one."""
    found: dict[int, range] = {}
    start = 0
    for i, kind in enumerate([*kinds, ""]):
        if not kind:
            found |= {place: range(start, i) for place in range(start, i)}
            start = i + 1
    return found


def _removable(parts: list[_Part], kinds: list[str], run: range, *, headed: int | None) -> bool:
    """Whether a run holds style beyond doubt, and is no enumeration that goes on with "and".

    `headed`: the part that lost a head such as "a photo of", which speaks for a run before it
    ("a bright, abstract painting of") and one at the end.
    """
    at_end = run.stop == len(parts)
    if not at_end and "," in parts[run.stop].separator:
        words = parts[run.stop].text.split(" ", 1)
        if words[0].lower() in ("and", "or"):
            return False
    evident = headed is not None and (at_end or run.stop == headed)
    return evident or any(kinds[i] == "style" for i in run)


def _cut(text: str, *, head: bool) -> tuple[str, list[str]]:
    """A part without its head and the phrases inside, and what was taken out."""
    removed: list[str] = []
    cut = head_of(tokens(text)) if head else None
    while cut is not None:
        removed.append(text[cut.start : cut.end].strip())
        text = _join(text[: cut.start], cut, text[cut.end :])
        found = tokens(text)
        cut = (head_of(found) if head else None) or inside(found)
    if not removed and (cut := inside(tokens(text))):
        return _cut_inside(text, cut, removed)
    return text, removed


def _cut_inside(text: str, cut: Cut | None, removed: list[str]) -> tuple[str, list[str]]:
    while cut is not None:
        removed.append(text[cut.start : cut.end].strip())
        text = _join(text[: cut.start], cut, text[cut.end :])
        cut = inside(tokens(text))
    return text, removed


def _join(before: str, cut: Cut, after: str) -> str:
    """The text around a cut; an article before it fits the word that follows now."""
    following = (cut.instead + after).lstrip()
    article = re.search(r"\b([Aa])n?\s+$", before)
    if article and following:
        an = "n" if following[0].lower() in "aeiou" else ""
        before = f"{before[: article.start()]}{article[1]}{an} "
    gap = "" if before.rstrip().endswith(OPENING) or not before.strip() else " "
    return f"{before.rstrip()}{gap}{following}".rstrip()


def _without_bracket(found: re.Match[str], removed: list[str]) -> str:
    words = tokens(WEIGHT.sub("", found[1]))
    if kind_of(words, listed=False, alone=True):
        removed.append(found[0].strip())
        return ""
    return found[0]


def _tidy(text: str, caption: str) -> str:
    """The rest as a caption: single spaces, a capital where there was one, no loose marks."""
    text = " ".join(text.split()).strip(" ,;|:-–—")
    if not any(token.word not in ("a", "an", "the", "of", "and") for token in tokens(text)):
        return ""
    return text[0].upper() + text[1:] if caption[:1].isupper() else text
