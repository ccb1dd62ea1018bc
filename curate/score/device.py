"""Where a model runs and in which precision, decided once, by the process that plans the work."""

from __future__ import annotations

from typing import Any

from stylear.curate.engine import cores
from stylear.curate.engine.gpus import visible_gpus

CPU_THREADS = 2  # that load beside a model on the CPU (ours)


def pick_device(device: str) -> str:
    """`auto` as cuda where there is one, else cpu."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_dtype(dtype: str, device: str) -> str:
    """`auto` as float32 on a CPU, as bfloat16 elsewhere."""
    if dtype != "auto":
        return dtype
    return "float32" if pick_device(device) == "cpu" else "bfloat16"


def resolve_device(spec: Any) -> Any:
    """A scorer's settings with `auto` decided; settings without a device are as they were."""
    if not hasattr(spec, "device"):
        return spec
    device = pick_device(spec.device)
    dtype = {"dtype": pick_dtype(spec.dtype, device)} if hasattr(spec, "dtype") else {}
    return spec.model_copy(update={"device": device, **dtype})


def loading_threads(*, gpu: bool) -> int:
    """Threads that load for one worker: its share of the cores beside a GPU, few beside a busy CPU."""
    return max(CPU_THREADS, cores() // max(1, len(visible_gpus()))) if gpu else CPU_THREADS
