"""Explanations as text: a block of lines for each pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 20  # children and preference pairs that are listed; --json has all
WIDTH = 16


def lines_of(life: Mapping[str, Any]) -> Iterator[str]:
    """One pair, a line for each thing that is known of it."""
    yield entry("pair", f"{life['key']} ({life['kind']}), {life['outcome']}")
    yield entry("caption", life["caption"] or "-")
    image = life["image"]
    size = f"{image['width']}x{image['height']} {image['format']}" if image else "none"
    yield entry("image", f"{size}, {life['place']}")
    for name, value in life["origin"].items():
        if value is not None:
            yield entry(name, value)
    for name, score in life["scores"].items():
        values = ", ".join(f"{k} {v}" for k, v in score.items() if k != "measured_by")
        model = score["measured_by"].get("model")
        yield entry("score", f"{name}: {values}{f' ({model})' if model else ''}")
    for step in life["stages"]:
        yield entry(step["stage"], describe_step(step))
    yield from listed("child", [describe_child(child) for child in life.get("children", ())])
    yield from listed(
        "preference",
        [
            f"{one['role']} over {one['other']}" if one["role"] == "chosen"
            else f"rejected for {one['other']}"
            for one in life["preferences"]
        ],
    )  # fmt: skip


def entry(name: str, value: object) -> str:
    """A name and what it is."""
    return f"{name:<{WIDTH}}  {value}".rstrip()


def listed(name: str, found: list[str]) -> Iterator[str]:
    """A line for each of the first ones, and how many more there are."""
    for text in found[:SHOWN]:
        yield entry(name, text)
    if len(found) > SHOWN:
        yield entry(name, f"... and {len(found) - SHOWN} more (--json lists all)")


def describe_step(step: Mapping[str, Any]) -> str:
    """What a stage did, by which rule."""
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
    """A stylized pair that was made of a raw one."""
    if child["kept"]:
        fate = f"in {child['split']}" if child["split"] else "kept so far"
    else:
        fate = f"dropped by {child['stage']}: {child['reason']}"
    return f"{child['key']} in the style of {child['reference']}, {fate}"
