"""A pipeline's directory looked over before diffusers reads it: it names classes, it holds no code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stylear.errors import WeightsError
from stylear.weights import read_json

LIBRARIES = ("diffusers", "transformers")
CLASS = re.compile(r"[A-Z][A-Za-z0-9]*")


def check_model_index(model: Path) -> None:
    """Refuse a directory that carries code or takes a part from elsewhere than diffusers' classes.

    Raises WeightsError naming the file or the part.
    """
    code = next((path for path in sorted(model.rglob("*.py"))), None)
    if code is not None:
        raise WeightsError(
            f"{code}: expected weights, configs and vocabularies, found code",
            hint="code of a model is never run; remove it, or use a model that needs none",
        )
    index = read_json(model / "model_index.json")
    if not isinstance(index.get("_class_name"), str):
        raise WeightsError(
            f"{model / 'model_index.json'}: _class_name: expected the name of a class,"
            f" found {index.get('_class_name')!r}",
            hint="a list there names code that comes with the model; use a model that needs none",
        )
    for part, value in index.items():
        if isinstance(value, list) and not part.startswith("_") and not _known(part, value):
            raise WeightsError(
                f"{model / 'model_index.json'}: {part}: expected a class of diffusers or"
                f" transformers, found {value!r}",
                hint="use a model whose parts are classes of these libraries",
            )


def _known(part: str, value: list[Any]) -> bool:
    """Whether an entry is [library, class], [null, null] or a list of plain numbers."""
    from diffusers import pipelines

    if value == [None, None] or all(isinstance(item, (bool, int, float)) for item in value):
        return True
    if len(value) != 2 or not all(isinstance(item, str) for item in value):
        return False
    library, name = value
    module = library.isidentifier() and not library.startswith("_") and library.islower()
    within = library in LIBRARIES or (module and hasattr(pipelines, library))
    return within and bool(CLASS.fullmatch(name)) and part.isidentifier()
