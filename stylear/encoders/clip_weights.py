"""CLIP's weights as open_clip reads them: it goes by a file's ending and knows few layouts."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from stylear.weights.files import read_tensors, write_tensors
from stylear.weights.formats import SAFETENSORS, has_wrong_ending, require_weights

ROOTS = ("visual.", "text.", "transformer.", "token_embedding.")  # of a CLIP's tensors
KNOWN_ROOTS = (
    *ROOTS,
    *(f"module.{root}" for root in ROOTS),
)  # open_clip takes `module.` off itself
KNOWN_LEVEL = "state_dict"  # and unwraps this
BIG_VISION = (".npz", ".npy")  # endings of Google's SigLIP releases, which open_clip converts


@contextmanager
def adapt_for_open_clip(weights: Path) -> Iterator[Path]:
    """A file that open_clip reads: the weights themselves, or a temporary copy in safetensors.

    Raises WeightsError when the file cannot be read as weights.
    """
    if is_known_to_open_clip(weights):
        yield weights
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "open_clip_model.safetensors"
        write_tensors(file, read_tensors(weights, ROOTS))
        yield file


@contextmanager
def adapt_directory(directory: Path, weights: Path) -> Iterator[Path]:
    """A directory that open_clip reads: the model's own, or a temporary one that links to its other files."""
    with adapt_for_open_clip(weights) as file:
        if file == weights:
            yield directory
            return
        for other in directory.iterdir():
            if other != weights:
                (file.parent / other.name).symlink_to(other.resolve())
        yield file.parent


def is_known_to_open_clip(weights: Path) -> bool:
    """Whether open_clip reads the file as it is: its ending is right and its names are CLIP's.

    Raises WeightsError when the file cannot be read as weights.
    """
    if weights.suffix in BIG_VISION:
        return True
    file_format = require_weights(weights)
    if has_wrong_ending(weights, file_format):
        return False
    if file_format.kind == SAFETENSORS:
        from safetensors import safe_open

        with safe_open(weights, framework="pt") as file:
            names = list(file.keys())
    else:
        try:
            checkpoint = torch.load(weights, map_location="meta", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
            return False  # what reads it next says why
        checkpoint = checkpoint.get(KNOWN_LEVEL, checkpoint) if isinstance(checkpoint, dict) else {}
        names = [str(name) for name in checkpoint] if isinstance(checkpoint, dict) else []
    return any(name.startswith(KNOWN_ROOTS) for name in names)
