"""Weights in 8 bit for sampling on small cards, through torchao where it is installed."""

from __future__ import annotations

import torch

from stylear.errors import UsageError
from stylear.model.transformer import Decoder

INT8 = "int8"


def quantize_decoder(decoder: Decoder, quantization: str) -> None:
    """Store the matrices of all layers in 8 bit, a scale for each row; embeddings and head stay as they are.

    Products are computed in the decoder's dtype. The decoder can then be sampled from, but not saved. Raises
    UsageError for another quantization, or if torchao is not installed.
    """
    if quantization != INT8:
        raise UsageError(f"--quantize: expected {INT8}, found {quantization!r}")
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise UsageError(
            f"--quantize {quantization}: expected the package torchao, found none ({error})",
            hint="pip install torchao, or leave --quantize out",
        ) from error
    quantize_(decoder.model.layers, Int8WeightOnlyConfig())


def count_freed_bytes(decoder: Decoder) -> int:
    """Bytes that quantizing the layers of a decoder would free; 0 if it is quantized."""
    if find_quantization(decoder) is not None:
        return 0
    matrices = (p for p in decoder.model.layers.parameters() if p.dim() == 2)
    return sum(p.numel() * (p.element_size() - 1) for p in matrices)


def find_quantization(decoder: Decoder) -> str | None:
    """The quantization of a decoder's layers, None if there is none."""
    # torchao stores a quantized weight as a subclass of Tensor
    kinds = {type(parameter.data) for parameter in decoder.model.layers.parameters()}
    return None if kinds <= {torch.Tensor} else INT8
