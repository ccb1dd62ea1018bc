"""De-stylising: remove words of style from a caption, so that style comes from the image alone.

As StyleShot does with its training captions: "an oil painting of a dog, 8k" becomes "a dog". The words
are in words.txt, the rules in heads.py, phrases.py and tags.py. Words that name a thing in the scene
("a man drawing a picture", "a painting of a dog hangs on a wall") stay, and so do words not in the list.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stylear.curate.synthesize.prompts.destyle.heads import find_head
from stylear.curate.synthesize.prompts.destyle.phrases import find_phrase
from stylear.curate.synthesize.prompts.destyle.pieces import Cut
from stylear.curate.synthesize.prompts.destyle.tags import classify_part
from stylear.curate.synthesize.prompts.destyle.words import style_words, tokenize

# between the parts of a caption: commas, sentence ends, dashes with spaces around them
BETWEEN = re.compile(r"( ?(?:(?<!\d),|,(?!\d)|[;|]|\.(?= |$)|:(?= )| [-–—](?= )) ?)")
BRACKETS = re.compile(r" ?[(\[]([^()\[\]]*)[)\]]")
OPENING = ('"', "'", "“", "‘", "«", "(", "[")
WEIGHT = re.compile(r":[0-9.]+$")  # "(masterpiece:1.2)"
MAX_PASSES = 8  # each removes at least one word; no real caption needs more


class Destyled(NamedTuple):
    """A caption without its words of style, and the words removed."""

    text: str  # empty if nothing is left
    removed: tuple[str, ...]


def destyle(caption: str) -> Destyled:
    """Remove words of style from a caption; without any it is returned byte for byte.

    Applying it again changes nothing. The rules are ours, after StyleShot's description of its captions.
    """
    text, removed = caption, list[str]()
    for _ in range(MAX_PASSES):
        before = text
        text = _remove_once(text, removed)
        if text == before:
            break
        text = _clean_up(text, caption)
    return Destyled(text, tuple(removed))


class _Part(NamedTuple):
    """The text between two separators, and the separator before it."""

    separator: str
    text: str


def _remove_once(text: str, removed: list[str]) -> str:
    """One pass: the text left; `text` itself if there was nothing to remove."""
    before, whole = len(removed), text
    text = BRACKETS.sub(lambda match: _remove_bracket(match, removed), text)
    pieces = BETWEEN.split(text)
    parts = [_Part("", pieces[0])] + [
        _Part(*pair) for pair in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    closing = parts.pop().separator if len(parts) > 1 and not parts[-1].text else ""
    kinds = [_classify(parts, i) for i in range(len(parts))]
    if all(kinds):
        if "style" not in kinds:
            return text  # "Charcoal", "Salvador Dalí": may not be about style at all
        removed.append(text)
        return ""
    first = next(i for i, kind in enumerate(kinds) if not kind)
    shorter, cuts = _remove_phrases(parts[first].text, head=True)
    headed = shorter != parts[first].text
    runs = _find_runs(kinds)
    kept: list[_Part] = []
    stronger = ""  # of the separators before what was removed
    for i, part in enumerate(parts):
        if i in runs and _is_removable(parts, kinds, runs[i], headed=first if headed else None):
            removed.append(part.text)
            stronger = stronger or (part.separator if "." in part.separator else "")
            continue
        if not kinds[i]:
            part_text, cuts = (
                (shorter, cuts) if i == first else _remove_phrases(part.text, head=False)
            )
            removed += cuts
            part = part._replace(text=part_text)
        if stronger and "." not in part.separator:
            part = part._replace(separator=stronger)
        kept.append(part)
        stronger = ""
    if len(removed) == before:
        return whole
    remaining = [part for part in kept if part.text]
    if not remaining:
        return ""
    closing = closing or stronger.strip()
    return remaining[0].text + "".join(p.separator + p.text for p in remaining[1:]) + closing


def _classify(parts: list[_Part], position: int) -> str:
    """Classify a part as style, hint or neither, as a sentence of its own or an entry of a list."""
    following = parts[position + 1].separator if position + 1 < len(parts) else ""
    listed = "," in parts[position].separator + following
    words = tokenize(parts[position].text)
    kind = classify_part(words, listed=listed, alone=len(parts) > 1 and not listed)
    if kind and words[0].word == "in":  # the style of a picture in the scene?
        for part in parts[:position]:
            earlier = tokenize(part.text)
            if style_words().media.occurs_in(earlier) and not classify_part(
                earlier, listed=True, alone=False
            ):
                return ""
    return kind


def _find_runs(kinds: list[str]) -> dict[int, range]:
    """For each part that is style, the run of adjacent style parts that it belongs to."""
    runs: dict[int, range] = {}
    start = 0
    for i, kind in enumerate([*kinds, ""]):
        if not kind:
            runs |= {position: range(start, i) for position in range(start, i)}
            start = i + 1
    return runs


def _is_removable(parts: list[_Part], kinds: list[str], run: range, *, headed: int | None) -> bool:
    """Whether a run is certainly style, and not part of a list that continues with "and".

    `headed`: the part that lost a head such as "a photo of", which is evidence for a run before it
    ("a bright, abstract painting of") and for one at the end.
    """
    at_end = run.stop == len(parts)
    if not at_end and "," in parts[run.stop].separator:
        words = parts[run.stop].text.split(" ", 1)
        if words[0].lower() in ("and", "or"):
            return False
    evident = headed is not None and (at_end or run.stop == headed)
    return evident or any(kinds[i] == "style" for i in run)


def _remove_phrases(text: str, *, head: bool) -> tuple[str, list[str]]:
    """Remove the head and the phrases of style from a part; the text left, and the words removed."""
    removed: list[str] = []
    cut = find_head(tokenize(text)) if head else None
    while cut is not None:
        removed.append(text[cut.start : cut.end].strip())
        text = _join(text[: cut.start], cut, text[cut.end :])
        tokens = tokenize(text)
        cut = (find_head(tokens) if head else None) or find_phrase(tokens)
    if not removed and (cut := find_phrase(tokenize(text))):
        return _remove_inside(text, cut, removed)
    return text, removed


def _remove_inside(text: str, cut: Cut | None, removed: list[str]) -> tuple[str, list[str]]:
    while cut is not None:
        removed.append(text[cut.start : cut.end].strip())
        text = _join(text[: cut.start], cut, text[cut.end :])
        cut = find_phrase(tokenize(text))
    return text, removed


def _join(before: str, cut: Cut, after: str) -> str:
    """Join the text around a cut, adapting an article before it to the word that now follows."""
    following = (cut.instead + after).lstrip()
    article = re.search(r"\b([Aa])n?\s+$", before)
    if article and following:
        an = "n" if following[0].lower() in "aeiou" else ""
        before = f"{before[: article.start()]}{article[1]}{an} "
    gap = "" if before.rstrip().endswith(OPENING) or not before.strip() else " "
    return f"{before.rstrip()}{gap}{following}".rstrip()


def _remove_bracket(match: re.Match[str], removed: list[str]) -> str:
    words = tokenize(WEIGHT.sub("", match[1]))
    if classify_part(words, listed=False, alone=True):
        removed.append(match[0].strip())
        return ""
    return match[0]


def _clean_up(text: str, caption: str) -> str:
    """The text as a caption: single spaces, the original capitalisation, no stray punctuation."""
    text = " ".join(text.split()).strip(" ,;|:-–—")
    if not any(token.word not in ("a", "an", "the", "of", "and") for token in tokenize(text)):
        return ""
    return text[0].upper() + text[1:] if caption[:1].isupper() else text
