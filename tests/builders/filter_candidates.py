"""Candidates for the rules of the filter, and the reasons that the rules give."""

from __future__ import annotations

from typing import Any

from builders.candidate_rows import Candidate, decide
from stylear.curate.recipe import Recipe

NAN = float("nan")


GREY = "80" * 12
NEAR: dict[str, Any] = {"exact": False, "phash_distance": 4}


OFF: dict[str, Any] = {"exact": False, "phash_distance": None}


def recipe(**rules: Any) -> Recipe:
    """A recipe with a text and a style score; rules that are not named are off."""
    return Recipe.model_validate(
        {
            "name": "test",
            "raw": [{"type": "mini"}],
            "score": [{"name": "text", "type": "clip-text"}, {"name": "style", "type": "texture"}],
            "filter": {"best_of": None, "duplicates": OFF, **rules},
        }
    )


def stylized(key: str, text: float | None = None, **changes: Any) -> Candidate:
    values: dict[str, Any] = {
        "key": key,
        "kind": "stylized",
        "source": "synthesizer:test",
        "content": f"content of {key}",
        "parent": None,
        "reference": "mosaic",
        "group": None,
        "image_sha256": f"sha of {key}",
        "source_sha256": None,
        "kept": True,
        "stage": None,
        "reason": None,
        "scores": {"text": text, "style": None},
    }
    return Candidate(**values | changes)


def raw(key: str, text: float | None = None, **changes: Any) -> Candidate:
    values = {"kind": "raw", "reference": None, "source": f"folder:{key}.png", **changes}
    return stylized(key, text, **values)


def reasons(pairs: list[Candidate], **rules: Any) -> dict[str, str | None]:
    """The reason of every pair after `rules`; None: kept."""
    keys = [pair.key for pair in pairs]
    decided = decide(pairs, recipe(**rules))
    assert [pair.key for pair in decided] == keys
    return {pair.key: pair.reason for pair in decided}
