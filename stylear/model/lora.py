"""LoRA (arXiv 2106.09685) for linear layers, in the file format of PEFT.

r rank, I inputs, O outputs. A is (r, I), B is (O, r) as in PEFT.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylear.errors import WeightsError
from stylear.model.decoder_layers import Head
from stylear.model.lora_config import LoraConfig, check_peft_config, layer_alpha, scale_lora
from stylear.model.transformer import Decoder
from stylear.weights import files as weights

PEFT_PREFIX = "base_model.model."
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILES = ("adapter_model.safetensors", "adapter_model.bin")  # the first is written


class LoraLinear(Head):
    """A frozen linear layer plus B A, scaled by alpha / r; the layer keeps its name and weight.

    A and B may be held in fp32 beside a weight in bf16, for training: they are cast to the input's dtype.
    """

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, dtype: torch.dtype | None = None
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.rank, self.alpha, self.kind = rank, alpha, type(base)
        self.use_rslora, self.dropout = False, 0.0
        self.weight, self.bias = base.weight, base.bias
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.lora_A = nn.Parameter(self.weight.new_zeros(rank, base.in_features, dtype=dtype))
        self.lora_B = nn.Parameter(self.weight.new_zeros(base.out_features, rank, dtype=dtype))

    @property
    def scale(self) -> float:
        return scale_lora(self.rank, self.alpha, self.use_rslora)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + self.change(x, self.lora_B)

    def rows(self, x: Tensor, rows: slice | Tensor) -> Tensor:
        return F.linear(x, self.weight[rows]) + self.change(x, self.lora_B[rows])

    def change(self, x: Tensor, lora_b: Tensor) -> Tensor:
        """What LoRA adds to the outputs of inputs x (..., I)."""
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        return F.linear(F.linear(x, self.lora_A.to(x.dtype)), (self.scale * lora_b).to(x.dtype))


def lora_layers(decoder: Decoder) -> Iterator[tuple[str, LoraLinear]]:
    """The names and modules of the layers with LoRA."""
    for name, module in decoder.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def lora_parameters(decoder: Decoder) -> list[nn.Parameter]:
    """The trainable parameters of LoRA: every A and B."""
    return [p for _, layer in lora_layers(decoder) for p in (layer.lora_A, layer.lora_B)]


def apply_lora(
    decoder: Decoder,
    rank: int = 4,  # StyleAR paper
    targets: Sequence[str] | None = None,
    *,
    alpha: float | None = None,  # rank, as the released code has no alpha
    seed: int = 0,
) -> None:
    """Freeze the decoder and add LoRA of one rank to the linear layers whose last name is in `targets`.

    `targets` are the decoder's own if None. Raises ValueError as `apply_lora_config` does.
    """
    chosen = None if targets is None else tuple(targets)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen)
    apply_lora_config(decoder, config, seed=seed)


def apply_lora_config(decoder: Decoder, config: LoraConfig, *, seed: int = 0) -> None:
    """Freeze the decoder and add LoRA in fp32 to the linear layers that `config` selects.

    A is initialised as in PEFT and B is zero, so outputs do not change before training. Raises ValueError
    if a target does not exist or the decoder has LoRA already.
    """
    if next(lora_layers(decoder), None) is not None:
        raise ValueError("decoder: has LoRA already; merge it first")
    layers = {
        name: module for name, module in decoder.named_modules() if isinstance(module, nn.Linear)
    }
    # patterns are of names in checkpoints, as PEFT sees them
    stored = {decoder.checkpoint_name(name): name for name in layers}
    heads = {name for name, own in stored.items() if isinstance(layers[own], Head)}
    chosen = config.choose_layers(list(stored), heads, decoder.lora_targets)
    decoder.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in chosen:
        own, rank = layers[stored[name]], config.rank_of(name)
        layer = LoraLinear(own, rank, config.alpha_of(name, rank), torch.float32)
        layer.use_rslora, layer.dropout = config.use_rslora, config.lora_dropout
        fresh = torch.empty(rank, layer.in_features)
        nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator)
        layer.lora_A.data.copy_(fresh)
        decoder.set_submodule(stored[name], layer)


@torch.no_grad()
def merge_lora(decoder: Decoder) -> None:
    """Merge every B A into the weight of its layer and remove LoRA; all weights become trainable."""
    for name, layer in list(lora_layers(decoder)):
        with torch.device("meta"):
            plain = layer.kind(layer.in_features, layer.out_features, bias=layer.bias is not None)
        change = layer.scale * (layer.lora_B.float() @ layer.lora_A.float())
        plain.weight = nn.Parameter((layer.weight.float() + change).to(layer.weight.dtype))
        if layer.bias is not None:
            plain.bias = nn.Parameter(layer.bias)
        decoder.set_submodule(name, plain)
    decoder.requires_grad_(True)


def write_peft(
    decoder: Decoder, directory: Path, base: str | None, dtype: torch.dtype | None = None
) -> None:
    """Write adapter_config.json and adapter_model.safetensors, readable by the peft library."""
    layers = {decoder.checkpoint_name(name): layer for name, layer in lora_layers(decoder)}
    if not layers:
        raise ValueError("decoder: has no LoRA to write")
    first = next(iter(layers.values()))
    rank = Counter(layer.rank for layer in layers.values()).most_common(1)[0][0]
    alpha = Counter(layer.alpha for layer in layers.values()).most_common(1)[0][0]
    tensors = {}
    for name, layer in layers.items():
        tensors[f"{PEFT_PREFIX}{name}.lora_A.weight"] = layer.lora_A
        tensors[f"{PEFT_PREFIX}{name}.lora_B.weight"] = layer.lora_B
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: x.rank for name, x in layers.items() if x.rank != rank},
        "alpha_pattern": {name: x.alpha for name, x in layers.items() if x.alpha != alpha},
        "use_rslora": first.use_rslora,
        "lora_dropout": first.dropout,
        "bias": "none",
        "fan_in_fan_out": False,
        # full names where last names are not unique in the checkpoint, as another tower may share them
        "target_modules": sorted(
            layers if decoder.checkpoint_prefixes else {name.split(".")[-1] for name in layers}
        ),
        "inference_mode": True,
    }
    weights.write_tensors(directory / WEIGHTS_FILES[0], tensors, dtype=dtype)
    weights.write_json(directory / CONFIG_FILE, config)


def read_peft(decoder: Decoder, directory: Path, dtype: torch.dtype | None = None) -> None:
    """Apply the LoRA of a PEFT directory to a plain decoder; `dtype` is that of A and B.

    Raises WeightsError if it does not fit.
    """
    tensors, alphas, file = read_peft_tensors(directory)
    own = {decoder.module_name(name): value for name, value in tensors.items()}
    scales = {decoder.module_name(name): alpha for name, alpha in alphas.items()}
    install_lora(decoder, own, scales, str(file), dtype)
    path = directory / CONFIG_FILE
    config = LoraConfig.from_peft(weights.read_json(path), path)
    for name, layer in lora_layers(decoder):
        layer.alpha = config.alpha_of(decoder.checkpoint_name(name), layer.rank)
        layer.use_rslora, layer.dropout = config.use_rslora, config.lora_dropout


def read_peft_tensors(directory: Path) -> tuple[dict[str, Tensor], dict[str, float], Path]:
    """The tensors of a PEFT directory by LAYER.lora_A and LAYER.lora_B, each layer's alpha, and their file.

    Raises WeightsError if the directory is no PEFT adapter or holds more than LoRA.
    """
    path = directory / CONFIG_FILE
    config = weights.read_json(path)
    check_peft_config(config, path)
    file = next((directory / n for n in WEIGHTS_FILES if (directory / n).is_file()), None)
    if file is None:
        raise WeightsError(f"{directory}: expected {' or '.join(WEIGHTS_FILES)}, found neither")
    tensors = {
        name.removeprefix(PEFT_PREFIX).removesuffix(".weight"): value
        for name, value in weights.read_tensors(file).items()
    }
    layers = {name.rpartition(".")[0]: len(v) for name, v in tensors.items() if name.endswith("A")}
    alphas = {name: layer_alpha(config, name, rank) for name, rank in layers.items()}
    return tensors, alphas, file


def install_lora(
    decoder: Decoder,
    tensors: Mapping[str, Tensor],
    alphas: Mapping[str, float],
    what: str,
    dtype: torch.dtype | None = None,
) -> None:
    """Add LoRA from tensors named LAYER.lora_A and LAYER.lora_B; alpha is the rank where none is given.

    `dtype` is that of A and B, by default that of the layer. A decoder on the meta device gets the tensors
    themselves, in their dtype. Raises WeightsError naming the layer if a tensor is missing or has another
    shape.
    """
    layers = {
        name: module for name, module in decoder.named_modules() if isinstance(module, nn.Linear)
    }
    names = sorted({name.rpartition(".")[0] for name in tensors})
    if not names:
        raise WeightsError(f"{what}: expected LoRA weights, found none")
    for name in names:
        a, b = (tensors.get(f"{name}.lora_{part}") for part in "AB")
        if name not in layers or a is None or b is None:
            found = "no such layer" if name not in layers else "only one of A and B"
            raise WeightsError(f"{what}: {name}: expected a layer with A and B, found {found}")
        expected = (layers[name].in_features, layers[name].out_features, a.shape[0])
        if (a.shape[1], b.shape[0], b.shape[1]) != expected:
            raise WeightsError(
                f"{what}: LoRA on {name}: expected {expected[0]} inputs and {expected[1]} outputs, "
                f"found A {tuple(a.shape)} and B {tuple(b.shape)}",
                hint="the adapter belongs to another base model",
            )
    decoder.requires_grad_(False)
    for name in names:
        a, b = tensors[f"{name}.lora_A"], tensors[f"{name}.lora_B"]
        rank = a.shape[0]
        layer = LoraLinear(layers[name], rank, alphas.get(name, float(rank)), dtype)
        for part, value in (("lora_A", a), ("lora_B", b)):
            if layer.weight.is_meta:
                setattr(layer, part, nn.Parameter(value))
            else:
                getattr(layer, part).data.copy_(value)
        decoder.set_submodule(name, layer)
