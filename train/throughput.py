"""How fast a step is: tokens per second, model FLOPs utilisation (MFU), memory and time waiting for data."""

from __future__ import annotations

import resource
import sys

import torch
from torch import nn

from stylear.model.transformer import Decoder

GIB = 1 << 30
# dense bf16 peaks in TFLOP/s, from NVIDIA's data sheets; the first that occurs in the GPU's name is taken
PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
    "A6000": 154.8,
    "RTX 4090": 165.2,
}


def count_flops_per_token(decoder: Decoder) -> float:
    """FLOPs of training per token: 4 for each frozen weight of a matrix product, 6 for each trained one.

    A forward pass multiplies and adds once (2), the gradient of activations again (2), that of weights only
    where they train (2). Embedding tables, attention scores, the resampler and what activation
    checkpointing computes twice are not counted.
    """
    tables = {m.weight for m in decoder.modules() if isinstance(m, nn.Embedding)}
    flops = 0
    for name, parameter in decoder.named_parameters():
        if parameter.ndim == 2 and parameter not in tables and "_norm" not in name:
            flops += (6 if parameter.requires_grad else 4) * parameter.numel()
    return float(flops)


def find_peak_flops(device: str, peak_tflops: float | None) -> float | None:
    """The peak FLOP/s of a device: as given, or by the name of the GPU; None if unknown, as for CPUs."""
    if peak_tflops is not None:
        return peak_tflops * 1e12
    if not device.startswith("cuda"):
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak * 1e12 for part, peak in PEAK_TFLOPS.items() if part in name), None)


def measure_peak_memory_gib(device: str) -> float:
    """Peak memory so far: what torch allocated on a GPU, or the resident set of the process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


class Speedometer:
    """Turns the duration and tokens of a step into metrics."""

    def __init__(
        self, decoder: Decoder, device: str, peak_tflops: float | None, world_size: int = 1
    ) -> None:
        self.flops_per_token = count_flops_per_token(decoder)
        self.device, self.world_size = device, world_size
        self.peak_flops = find_peak_flops(device, peak_tflops)

    def measure(self, tokens: float, step_s: float, data_s: float) -> dict[str, float]:
        """Metrics of a step that trained on `tokens` tokens of all ranks; `mfu` only if the peak is known."""
        rate = tokens / step_s
        values = {"step_s": step_s, "data_s": data_s, "tokens_per_s": rate}
        if self.peak_flops is not None:
            values["mfu"] = rate * self.flops_per_token / (self.peak_flops * self.world_size)
        return values | {"peak_memory_gib": measure_peak_memory_gib(self.device)}
