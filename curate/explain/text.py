"""Explanations as text: a block of lines for each pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 20  # children and preference pairs that are listed; --json has all
WIDTH = 16


def format_history(history: Mapping[str, Any]) -> Iterator[str]:
    """The history of one pair as `name: value` lines."""
    yield format_line("pair", f"{history['key']} ({history['kind']}), {history['outcome']}")
    yield format_line("caption", history["caption"] or "-")
    image = history["image"]
    size = f"{image['width']}x{image['height']} {image['format']}" if image else "none"
    yield format_line("image", f"{size}, {history['shard']}")
    for name, value in history["origin"].items():
        if value is not None:
            yield format_line(name, value)
    for name, score in history["scores"].items():
        values = ", ".join(f"{k} {v}" for k, v in score.items() if k != "measured_by")
        model = score["measured_by"].get("model")
        yield format_line("score", f"{name}: {values}{f' ({model})' if model else ''}")
    for step in history["stages"]:
        yield format_line(step["stage"], describe_step(step))
    yield from format_list(
        "child", [describe_child(child) for child in history.get("children", ())]
    )
    yield from format_list(
        "preference",
        [
            f"{preference['role']} over {preference['other']}" if preference["role"] == "chosen"
            else f"rejected for {preference['other']}"
            for preference in history["preferences"]
        ],
    )  # fmt: skip


def format_line(name: str, value: object) -> str:
    """A line with a name and its value in columns."""
    return f"{name:<{WIDTH}}  {value}".rstrip()


def format_list(name: str, items: list[str]) -> Iterator[str]:
    """One line per item; only the number of those beyond SHOWN."""
    for text in items[:SHOWN]:
        yield format_line(name, text)
    if len(items) > SHOWN:
        yield format_line(name, f"... and {len(items) - SHOWN} more (--json lists all)")


def describe_step(step: Mapping[str, Any]) -> str:
    """The outcome of a stage and the rule that decided."""
    words = str(step["outcome"])
    if step["reason"] is not None:
        words += f": {step['reason']}"
    if step["rule"] is not None:
        threshold = "" if step["threshold"] is None else f" {step['threshold']}"
        words += f" ({step['rule']}{threshold}"
        words += f", found {step['value']})" if step["value"] is not None else ")"
    if step["because"] is not None:
        words += f"; {step['because']}"
    return words


def describe_child(child: Mapping[str, Any]) -> str:
    """A stylized pair in the list of a raw one's children."""
    if child["kept"]:
        fate = f"in {child['split']}" if child["split"] else "kept so far"
    else:
        fate = f"dropped by {child['stage']}: {child['reason']}"
    return f"{child['key']} in the style of {child['reference']}, {fate}"
