"""The memory of a batch: keys and values of its rows, and the batch size that would fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylear.errors import UsageError
from stylear.sampling.decode import BUCKET
from stylear.weights import memory
from stylear.weights.memory import GB

if TYPE_CHECKING:
    import torch

    from stylear.model.decoder_config import DecoderConfig


def count_cache_bytes(config: DecoderConfig, slots: int, dtype: torch.dtype) -> int:
    """Bytes of keys and values of one row with so many slots."""
    rounded = -(-slots // BUCKET) * BUCKET
    heads = config.num_key_value_heads * config.head_dim
    return 2 * config.num_hidden_layers * heads * rounded * dtype.itemsize


def require_batch_memory(
    config: DecoderConfig,
    pictures: int,
    slots: int,
    *,
    sides: int,
    dtype: torch.dtype,
    device: torch.device,
    quantization_frees: int = 0,
) -> None:
    """Raise UsageError with the batch size that fits if a batch of pictures does not.

    A picture takes a row for each side of guidance. `quantization_frees` are the bytes that weights in 8
    bit would free.
    What a forward pass takes besides keys and values is not counted.
    """
    free = memory.measure_free_memory(device)
    picture = sides * count_cache_bytes(config, slots, dtype)
    if free is None or pictures * picture <= free:
        return
    place = "GPU memory" if device.type == "cuda" else "main memory"
    fits, fits_quantized = free // picture, min((free + quantization_frees) // picture, pictures)
    hint = (
        f"--batch-size {fits} fits"
        if fits
        else f"a picture takes {picture / GB:.1f} GB: give a smaller --size, or --guidance 1 and no"
        " --style-guidance for less of it"
    )
    if fits_quantized > fits:
        hint += f"; with --quantize int8 --batch-size {fits_quantized} fits"
    raise UsageError(
        f"batch of {pictures} pictures: expected {pictures * picture / GB:.1f} GB of {place} for keys and "
        f"values, found {free / GB:.1f} GB free",
        hint=hint,
    )
