"""Prompts longer than the model's context: recorded for each shard and reported as a warning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from stylear.curate.corpus.ledger import Entry
from stylear.pair import Pair

NOTE = "prompts_truncated"
SHOWN = 80  # characters of the text that was cut


def note_truncation(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The ledger note of a shard with truncated prompts: {images, tokens, limit, cut}; else empty.

    `tokens` and `cut`, the text that the model did not read, are of the longest prompt.
    """
    truncated = [pair.origin.details for pair in pairs]
    truncated = [details for details in truncated if details.get("prompt_truncated_at") is not None]
    if not truncated:
        return {}
    longest = max(truncated, key=lambda details: int(details["prompt_tokens"] or 0))
    return {
        NOTE: {
            "images": len(truncated),
            "tokens": longest["prompt_tokens"],
            "limit": longest["prompt_truncated_at"],
            "cut": longest.get("prompt_truncated_text"),
        }
    }


def describe_truncation(entries: Iterable[Entry]) -> list[str]:
    """How many images have a truncated prompt, and what the longest lost: one sentence, or none."""
    notes = [entry.note[NOTE] for entry in entries if NOTE in entry.note]
    if not notes:
        return []
    longest = max(notes, key=lambda note: int(note["tokens"]))
    count, cut = sum(int(note["images"]) for note in notes), str(longest["cut"] or "")
    shown = cut if len(cut) <= SHOWN else f"{cut[: SHOWN - 3]}..."
    return [
        f"{count} stylized {'image has a prompt' if count == 1 else 'images have prompts'} longer than the"
        f" model's context: the longest has {longest['tokens']} tokens, the limit is {longest['limit']}, and"
        f" {shown!r} was cut; shorten the prompts, or see prompt_truncated_at in the pairs"
    ]
