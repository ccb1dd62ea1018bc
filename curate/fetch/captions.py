"""Chooses the captions of an image that has several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from stylear.curate.fetch.lists.row import CAPTION_COLUMNS
from stylear.pair import digest

CaptionRule = Literal["first", "all", "random"]
NOT_TEXT = "caption-not-text"


def choose_captions(value: object, rule: CaptionRule, seed: int, name: str) -> list[object]:
    """The captions that become pairs: a single text, or from a list the first, all, or a random one.

    `name` identifies the image, so that the seed draws for each one on its own. Texts of a list may be in
    objects (`{"caption": ...}`, `{"raw": ...}`). Nothing usable gives [None].
    """
    if isinstance(value, Mapping):
        value = caption_in(value)
    if not isinstance(value, list | tuple):
        return [value]
    texts = [text for item in value if (text := caption_text(item))]
    if not texts:
        return [None]
    if rule == "all":
        return list(dict.fromkeys(texts))
    if rule == "random":
        return [texts[int(digest("caption", seed, name)[:12], 16) % len(texts)]]
    return [texts[0]]


def caption_text(item: object) -> str | None:
    """The text of one entry of a caption list; None when there is none."""
    text = caption_in(item) if isinstance(item, Mapping) else item
    return text if isinstance(text, str) and text.strip() else None


def caption_in(record: object) -> object:
    """The caption in a JSON object, under any of the usual names: a text, or a list of them."""
    if isinstance(record, Mapping):
        for name in (*CAPTION_COLUMNS, "raw"):
            if isinstance(record.get(name), str | list):
                return record[name]
    return None


def caption_reason(value: object, caption: str) -> str | None:
    """Why a pair has no caption; None when it has one."""
    if caption:
        return None
    return "no-caption" if value is None or isinstance(value, str) else NOT_TEXT
