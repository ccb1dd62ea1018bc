"""The call of a diffusers pipeline in a recipe: data with placeholders that are filled for each image.

The placeholders are `{prompt}`, `{style}`, `{reference}`, `{size}` and `{seed}`. Nothing is evaluated,
formatted by Python or taken for a file. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

PLACEHOLDERS = ("prompt", "style", "reference", "size", "seed")
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
# set by the synthesiser, so that seeds, lineage and counts are right
RESERVED = frozenset(
    {"generator", "latents", "output_type", "return_dict", "num_images_per_prompt", "num_images"}
)
LOCATION = re.compile(r"^\s*(/|~|\\|[A-Za-z]:[\\/])|://|(^|[\\/])\.\.([\\/]|$)")


@cache
def list_pipeline_classes() -> frozenset[str]:
    """The pipeline classes of the installed diffusers, read from its source without importing it.

    Without the classes that choose another one by the content of a directory (DiffusionPipeline,
    AutoPipeline..., modular ones) and those of other runtimes.
    """
    from importlib.util import find_spec

    spec = find_spec("diffusers")
    if spec is None or spec.origin is None:
        return frozenset()
    text = Path(spec.origin).read_text("utf-8")
    names = re.findall(r'"([A-Z][A-Za-z0-9]*Pipeline)"', text)
    others = re.compile(r"Modular|Onnx|Flax|^Auto|^DiffusionPipeline$")
    return frozenset(name for name in names if not others.search(name))


def check_class(name: str) -> str:
    """The name if it is one of `list_pipeline_classes`. Raises ValueError with similar names otherwise."""
    if name not in list_pipeline_classes():
        near = get_close_matches(name, list_pipeline_classes(), 3)
        raise ValueError(
            "expected a pipeline class that the installed diffusers exports"
            + (f" ({', '.join(near)}?)" if near else "")
            + f", found {name!r}"
        )
    return name


def check_call(call: Mapping[str, Any]) -> None:
    """Raise ValueError for a call that is unsafe or would lose the lineage of an image."""
    for name in call:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or "__" in name:
            raise ValueError(f"call.{name}: expected the name of an argument")
        if name in RESERVED or name.startswith("callback"):
            raise ValueError(f"call.{name}: is set by the synthesiser; remove it")
    used = set[str]()
    for name, value in call.items():
        _check_value(f"call.{name}", value, used)
    if "prompt" not in used:
        raise ValueError("call: no argument contains {prompt}, so all images would show the same")
    if not used & {"style", "reference"}:
        raise ValueError(
            "call: no argument contains {reference} or {style}, so no image would have a style"
        )


def _check_value(where: str, value: Any, used: set[str]) -> None:
    """Check one value of a call; its placeholders are added to `used`."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not isinstance(key, str) or key.startswith("_"):
                raise ValueError(f"{where}: expected plain keys, found {key!r}")
            _check_value(f"{where}.{key}", part, used)
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            _check_value(f"{where}.{number}", part, used)
    elif isinstance(value, str):
        _check_text(where, value, used)
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise ValueError(f"{where}: expected text, numbers or lists, found {type(value).__name__}")


def _check_text(where: str, text: str, used: set[str]) -> None:
    for name in PLACEHOLDER.findall(text):
        if name not in PLACEHOLDERS:
            known = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(f"{where}: no placeholder is called {{{name}}}; there are {known}")
        if name == "reference" and text != "{reference}":
            raise ValueError(f"{where}: {{reference}} is an image, so it must be the whole value")
        used.add(name)
    unfilled = PLACEHOLDER.sub("", text)
    if "{" in unfilled or "}" in unfilled:
        raise ValueError(f"{where}: unbalanced brace in {text!r}")
    if LOCATION.search(text):
        raise ValueError(f"{where}: expected no path and no URL, found {text!r}")
    if "image" in where.split(".")[1] and text != "{reference}":
        raise ValueError(f"{where}: the only image is {{reference}}, found {text!r}")


def is_per_image(value: Any) -> bool:
    """Whether a value of a call differs between the images of one reference."""
    if isinstance(value, Mapping):
        return any(is_per_image(part) for part in value.values())
    if isinstance(value, (list, tuple)):
        return any(is_per_image(part) for part in value)
    return isinstance(value, str) and not {"prompt", "seed"}.isdisjoint(PLACEHOLDER.findall(value))


def fill_placeholders(value: Any, values: Mapping[str, Any]) -> Any:
    """A value of a call with its placeholders filled; a lone placeholder becomes its value."""
    if isinstance(value, Mapping):
        return {key: fill_placeholders(part, values) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [fill_placeholders(part, values) for part in value]
    if isinstance(value, str):
        alone = PLACEHOLDER.fullmatch(value)
        if alone:
            return values[alone[1]]
        return PLACEHOLDER.sub(lambda match: str(values[match[1]]), value)
    return value
