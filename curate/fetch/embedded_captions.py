"""Prompts that drawing tools leave inside PNGs (A1111 and its kin, ComfyUI), as captions."""

from __future__ import annotations

import json
from typing import Any

from stylear.curate.fetch.png import read_texts

MAX_DEPTH = 20  # nodes followed from a sampler to the text that conditions it


def embedded_caption(data: bytes) -> str | None:
    """The prompt that a drawing tool left in a PNG (A1111 and its kin, ComfyUI); None when there is none."""
    texts = read_texts(data)
    if "parameters" in texts:
        lines = []
        for line in texts["parameters"].splitlines():
            if line.startswith(("Negative prompt:", "Steps:")):
                break
            lines.append(line)
        return " ".join(lines).strip() or None
    if "prompt" in texts:
        return comfyui_prompt(texts["prompt"])
    return texts.get("Description") or texts.get("Comment") or None


def comfyui_prompt(text: str) -> str | None:
    """The positive prompt of a ComfyUI graph: the text that its sampler is conditioned on."""
    try:
        graph = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(graph, dict):
        return None
    for node in graph.values():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if isinstance(inputs, dict) and "positive" in inputs:
            found = follow_text(graph, inputs["positive"], MAX_DEPTH)
            if found:
                return found
    return None


def follow_text(graph: dict[str, Any], link: object, depth: int) -> str | None:
    """The first text that a link leads to: a link is [node, output], a text stands for itself."""
    if isinstance(link, str):
        return link.strip() or None
    if depth == 0 or not isinstance(link, list) or not link:
        return None
    node = graph.get(str(link[0]))
    inputs = node.get("inputs") if isinstance(node, dict) else None
    if not isinstance(inputs, dict):
        return None
    for name in ("text", "text_g", "text_l", "string", "value", "positive", "conditioning"):
        if name in inputs and (found := follow_text(graph, inputs[name], depth - 1)):
            return found
    return None
