"""Reads the prompts that generators embed in images: A1111 and forks, ComfyUI, InvokeAI, NovelAI.

A1111 writes "parameters": the prompt, then lines that begin with "Negative prompt:" and "Steps:". ComfyUI
writes "prompt": the graph of nodes as JSON, in which the sampler's `positive` input leads to the text.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from typing import Any

from PIL import Image

from stylear.curate.fetch.png import SIGNATURE, read_texts

MAX_NODES = 2_000  # of a ComfyUI graph that are looked at
TEXT_INPUTS = ("text", "text_g", "text_l", "t5xxl", "string", "value", "prompt")
LINK_INPUTS = ("positive", "conditioning", "conditioning_1", "guider", "samples", "latent_image")
END_OF_PROMPT = re.compile(r"^(Negative prompt:|Steps: \d)", re.MULTILINE)
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286  # A1111 writes its parameters there in JPEG and WebP
MAKE, MODEL = 0x010F, 0x0110  # ComfyUI: "workflow:{...}" and "prompt:{...}"


def read_prompt(data: bytes) -> str | None:
    """The prompt that a generator embedded in an image; None if there is none."""
    texts = read_texts(data) if data.startswith(SIGNATURE) else _read_exif(data)
    if "parameters" in texts:
        return parse_parameters(texts["parameters"])
    if "prompt" in texts:
        return parse_graph(texts["prompt"])
    if "invokeai_metadata" in texts:
        metadata = _parse_json(texts["invokeai_metadata"])
        prompt = metadata.get("positive_prompt") if isinstance(metadata, Mapping) else None
        return prompt if isinstance(prompt, str) else None
    return texts.get("Description") or None  # NovelAI, and tools that use PNG's standard keyword


def parse_parameters(text: str) -> str | None:
    """The prompt of A1111's parameters."""
    end = END_OF_PROMPT.search(text)
    prompt = text[: end.start()] if end else text
    return " ".join(prompt.split()) or None


def parse_graph(text: str) -> str | None:
    """The positive prompt of a ComfyUI graph: the first sampler's, else the only text of all nodes."""
    graph = _parse_json(text)
    if not isinstance(graph, Mapping) or len(graph) > MAX_NODES:
        return None
    for node in graph.values():
        for name in ("positive", "guider"):
            target = _inputs(node).get(name)
            if isinstance(target, list) and (prompt := _follow(graph, target)) is not None:
                return prompt
    texts = {
        prompt
        for node in graph.values()
        if "TextEncode" in str(node.get("class_type") if isinstance(node, Mapping) else "")
        if (prompt := _find_text(graph, node, set())) is not None
    }
    return texts.pop() if len(texts) == 1 else None


def _follow(graph: Mapping[str, Any], link: list[Any], seen: set[str] | None = None) -> str | None:
    """The text that a link `[node, output]` leads to."""
    seen = set() if seen is None else seen
    name = str(link[0]) if link else ""
    if name in seen or len(seen) > 100:
        return None
    seen.add(name)
    return _find_text(graph, graph.get(name), seen)


def _find_text(graph: Mapping[str, Any], node: Any, seen: set[str]) -> str | None:
    """The text of a node, or of the node that one of its inputs leads to."""
    inputs = _inputs(node)
    for name in (*TEXT_INPUTS, *LINK_INPUTS):
        value = inputs.get(name)
        if name in TEXT_INPUTS and isinstance(value, str) and value.strip():
            return value
        if isinstance(value, list) and (prompt := _follow(graph, value, seen)) is not None:
            return prompt
    return None


def _inputs(node: Any) -> Mapping[str, Any]:
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    return inputs if isinstance(inputs, Mapping) else {}


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read_exif(data: bytes) -> dict[str, str]:
    """The same texts from the EXIF of a JPEG or WebP."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG", "WEBP"]) as image:
            exif = image.getexif()
            comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT)
            fields = [exif.get(MAKE), exif.get(MODEL)]
    except (
        Exception
    ):  # parsers of hostile bytes raise anything; a picture without a prompt is the verdict
        return {}
    texts: dict[str, str] = {}
    for field in fields:
        keyword, colon, text = field.partition(":") if isinstance(field, str) else ("", "", "")
        if colon and keyword == "prompt":
            texts[keyword] = text
    if isinstance(comment, bytes) and (parameters := _decode_comment(comment)):
        texts["parameters"] = parameters
    return texts


def _decode_comment(comment: bytes) -> str | None:
    """An EXIF comment: eight bytes that name its code, then the text."""
    code, text = comment[:8], comment[8:]
    encodings = ("utf-16-be", "utf-16-le") if code.startswith(b"UNICODE") else ("utf-8",)
    for encoding in encodings:
        try:
            decoded = text.decode(encoding).strip("\0 ")
        except UnicodeDecodeError:
            continue
        if decoded.isascii() or encoding == encodings[-1] or "Steps" in decoded:
            return decoded
    return None
