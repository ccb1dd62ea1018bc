"""Lineage: the weights files of a model directory, their hash, and what a derived model records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylear.errors import WeightsError
from stylear.model import lora
from stylear.model.families.family import DECODER, DECODER_FILES
from stylear.model.style_model import StyleModel
from stylear.weights import files as weights
from stylear.weights import names


def find_decoder_file(directory: Path) -> Path:
    """The decoder weights of a full model directory: a single file or the index of several shards.

    Raises WeightsError if there is neither.
    """
    candidates = [
        directory / name for file in DECODER_FILES for name in (file, f"{file}.index.json")
    ]
    for file in candidates:
        if file.is_file():
            return file
    raise WeightsError(
        f"{directory}: expected {DECODER} or {DECODER}.index.json, found neither",
        hint="check that the path is a complete model directory",
    )


def hash_decoder(directory: Path) -> str:
    """SHA-256 of the decoder weights of a full model directory, over all shards if there are several."""
    return weights.hash_weights(find_decoder_file(directory))


def describe_lineage(model: StyleModel) -> dict[str, Any]:
    """The lineage that a model derived from this one records: name or path, and the decoder's SHA-256.

    For a model with LoRA it is the base that its adapter needs.
    """
    if model.source is None:
        return {"model": model.name}
    if (model.source / lora.CONFIG_FILE).is_file():
        return dict(model.settings.base)
    name, sha256 = names.find_model_name(model.source), hash_decoder(model.source)
    return {"model": name, "sha256": sha256}
