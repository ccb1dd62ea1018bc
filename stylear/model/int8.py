"""Frozen linear layers with 8-bit weights, for training and sampling: integers and one scale per row.

I inputs, O outputs. A weight W (O, I) is kept as round(W / s) with s = max |W| / 127 of its row; products are
computed in the dtype of the inputs. A layer takes half the memory of bf16; no library and no GPU is needed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylear.errors import UsageError
from stylear.model.decoder_layers import Head
from stylear.model.lora import LoraLinear
from stylear.model.transformer import Decoder

INT8 = "int8"


class Int8Product(torch.autograd.Function):
    """x W^T for inputs x (..., I); the backward pass keeps the integers, not the weight they stand for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, integers: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(integers, scales)
        return F.linear(x, integers.to(x.dtype)) * scales.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        integers, scales = ctx.saved_tensors
        (gradient,) = gradients
        return (gradient * scales.to(gradient.dtype)) @ integers.to(gradient.dtype), None, None


class Int8Linear(Head):
    """A frozen linear layer of another layer's weight in 8 bits."""

    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        integers, scales = quantize_rows(base.weight.detach())
        self.weight = nn.Parameter(integers, requires_grad=False)
        self.register_buffer("scales", scales, persistent=False)
        self.scales: Tensor
        self.bias = base.bias

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = Int8Product.apply(x, self.weight, self.scales)
        return product if self.bias is None else product + self.bias

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        raise ValueError(f"{prefix}weight: 8-bit weights cannot be saved")


class Int8LoraLinear(LoraLinear):
    """The layer of LoRA with its frozen weight in 8 bits."""

    def __init__(self, layer: LoraLinear) -> None:
        nn.Module.__init__(self)
        self.__dict__.update({k: v for k, v in vars(layer).items() if not k.startswith("_")})
        self.lora_A, self.lora_B, self.bias = layer.lora_A, layer.lora_B, layer.bias
        integers, scales = quantize_rows(layer.weight.detach())
        self.weight = nn.Parameter(integers, requires_grad=False)
        self.register_buffer("scales", scales, persistent=False)
        self.scales: Tensor

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = Int8Product.apply(x, self.weight, self.scales)
        if self.bias is not None:
            product = product + self.bias
        return product + self.change(x, self.lora_B)


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers (O, I) in int8 and scales (O, ) in fp32 of a weight (O, I)."""
    scales = weight.float().abs().amax(dim=1).clamp(min=1e-12) / 127
    return (weight.float() / scales[:, None]).round().to(torch.int8), scales


def quantize_blocks(decoder: Decoder) -> None:
    """Hold the linear layers of all blocks in 8 bits; the head, embeddings and norms stay as they are."""
    for block in decoder.model.layers:
        for name, module in list(block.named_modules()):
            if isinstance(module, Int8Linear | Int8LoraLinear):
                continue
            if isinstance(module, LoraLinear):
                block.set_submodule(name, Int8LoraLinear(module))
            elif isinstance(module, nn.Linear):
                block.set_submodule(name, Int8Linear(module))


def quantize_decoder(decoder: Decoder, quantization: str) -> None:
    """Hold the layers of a decoder in 8 bits for sampling; it cannot be saved then.

    Raises UsageError for another quantization than "int8".
    """
    if quantization != INT8:
        raise UsageError(f"--quantize: expected {INT8}, found {quantization!r}")
    quantize_blocks(decoder)


def count_freed_bytes(decoder: Decoder) -> int:
    """Bytes that holding the linear layers of all blocks in 8 bits would free; 0 if they are."""
    linear = (m for m in decoder.model.layers.modules() if isinstance(m, nn.Linear))
    return sum(m.weight.numel() * (m.weight.element_size() - 1) for m in linear)


def find_quantization(decoder: Decoder) -> str | None:
    """The quantization of a decoder's layers, None if there is none."""
    modules = decoder.model.layers.modules()
    return INT8 if any(isinstance(m, Int8Linear | Int8LoraLinear) for m in modules) else None
