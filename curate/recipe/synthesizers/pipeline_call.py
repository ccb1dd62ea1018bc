"""The call of a diffusers pipeline as a recipe writes it: data with places that each image fills.

`{prompt}`, `{style}`, `{reference}`, `{size}` and `{seed}` are all a text can stand for; nothing of
it is evaluated, formatted by Python or taken for a file. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

PLACES = ("prompt", "style", "reference", "size", "seed")
PLACE = re.compile(r"\{([^{}]*)\}")
# what the synthesiser itself says, so that seeds, lineage and counts stay true
OURS = frozenset(
    {"generator", "latents", "output_type", "return_dict", "num_images_per_prompt", "num_images"}
)
LOCATION = re.compile(r"^\s*(/|~|\\|[A-Za-z]:[\\/])|://|(^|[\\/])\.\.([\\/]|$)")


@cache
def pipeline_classes() -> frozenset[str]:
    """The pipelines that the installed diffusers exports, read from its text: nothing is imported.

    Left out are classes that choose another class by what a directory says (DiffusionPipeline,
    AutoPipeline..., modular ones) and those of other runtimes.
    """
    from importlib.util import find_spec

    spec = find_spec("diffusers")
    if spec is None or spec.origin is None:
        return frozenset()
    text = Path(spec.origin).read_text("utf-8")
    found = re.findall(r'"([A-Z][A-Za-z0-9]*Pipeline)"', text)
    others = re.compile(r"Modular|Onnx|Flax|^Auto|^DiffusionPipeline$")
    return frozenset(name for name in found if not others.search(name))


def check_class(name: str) -> str:
    """The name, when it is one of `pipeline_classes`. Raises ValueError with what is near."""
    if name not in pipeline_classes():
        near = get_close_matches(name, pipeline_classes(), 3)
        raise ValueError(
            "expected a pipeline class that the installed diffusers exports"
            + (f" ({', '.join(near)}?)" if near else "")
            + f", found {name!r}"
        )
    return name


def check_call(call: Mapping[str, Any]) -> None:
    """Raises ValueError for a call that could not be made safely or would lose an image's lineage."""
    for name in call:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or "__" in name:
            raise ValueError(f"call.{name}: expected the name of an argument")
        if name in OURS or name.startswith("callback"):
            raise ValueError(f"call.{name}: is set by the synthesiser, remove it")
    used = set[str]()
    for name, value in call.items():
        _check(f"call.{name}", value, used)
    if "prompt" not in used:
        raise ValueError("call: no argument holds {prompt}, so every image would be of the same")
    if not used & {"style", "reference"}:
        raise ValueError(
            "call: no argument holds {reference} or {style}, so no image would be in a style"
        )


def _check(where: str, value: Any, used: set[str]) -> None:
    """One value of a call; the places in it are added to `used`."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not isinstance(key, str) or key.startswith("_"):
                raise ValueError(f"{where}: expected plain keys, found {key!r}")
            _check(f"{where}.{key}", part, used)
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            _check(f"{where}.{number}", part, used)
    elif isinstance(value, str):
        _check_text(where, value, used)
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise ValueError(f"{where}: expected text, numbers or lists, found {type(value).__name__}")


def _check_text(where: str, text: str, used: set[str]) -> None:
    for name in PLACE.findall(text):
        if name not in PLACES:
            known = " ".join(f"{{{place}}}" for place in PLACES)
            raise ValueError(f"{where}: no place is called {{{name}}}; there are {known}")
        if name == "reference" and text != "{reference}":
            raise ValueError(f"{where}: {{reference}} is a picture and stands alone")
        used.add(name)
    rest = PLACE.sub("", text)
    if "{" in rest or "}" in rest:
        raise ValueError(f"{where}: a brace without its other one in {text!r}")
    if LOCATION.search(text):
        raise ValueError(f"{where}: expected no path and no URL, found {text!r}")
    if "image" in where.split(".")[1] and text != "{reference}":
        raise ValueError(f"{where}: the only picture is {{reference}}, found {text!r}")


def varies(value: Any) -> bool:
    """Whether a value of a call differs between the images of one reference."""
    if isinstance(value, Mapping):
        return any(varies(part) for part in value.values())
    if isinstance(value, (list, tuple)):
        return any(varies(part) for part in value)
    return isinstance(value, str) and not {"prompt", "seed"}.isdisjoint(PLACE.findall(value))


def fill(value: Any, places: Mapping[str, Any]) -> Any:
    """A value of a call with its places filled; a text that is one place alone becomes its value."""
    if isinstance(value, Mapping):
        return {key: fill(part, places) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [fill(part, places) for part in value]
    if isinstance(value, str):
        alone = PLACE.fullmatch(value)
        if alone:
            return places[alone[1]]
        return PLACE.sub(lambda found: str(places[found[1]]), value)
    return value
