"""The families by the `model_type` of a config.json."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from stylear.errors import WeightsError
from stylear.model.families.family import CONFIG, Family

FAMILIES = {  # model_type: the module with its `FAMILY`
    "chameleon": "stylear.model.families.chameleon",
    "janus": "stylear.model.families.janus",
}
HINTS = {  # model types of checkpoints that people have and that are another format of the same model
    "multi_modality": "this is DeepSeek's own format; use the model in transformers' format: "
    "stylear models fetch janus-pro-1b",
}


def find_family(config: Mapping[str, Any], directory: Path | str) -> Family:
    """The family of a config.json. Raises WeightsError if it is of none of them."""
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        known = ", ".join(map(repr, FAMILIES))
        raise WeightsError(
            f"{Path(directory) / CONFIG}: model_type expected one of {known}, found {model_type!r}",
            hint=HINTS.get(
                str(model_type), "`stylear models list` shows the models that can be used"
            ),
        )
    family: Family = import_module(FAMILIES[model_type]).FAMILY
    return family
