"""The device and dtype of a model, resolved once, by the process that plans the work."""

from __future__ import annotations

from typing import Any

from stylear.curate.engine import cores
from stylear.curate.engine.gpus import visible_gpus
from stylear.device import pick_device

CPU_THREADS = 2  # loader threads when the model runs on the CPU (our choice)


def pick_dtype(dtype: str, device: str) -> str:
    """Resolve `auto` to float32 on a CPU and bfloat16 elsewhere."""
    if dtype != "auto":
        return dtype
    return "float32" if device == "cpu" else "bfloat16"


def resolve_device(spec: Any) -> Any:
    """A scorer's settings with `auto` resolved; settings without a device are returned unchanged."""
    if not hasattr(spec, "device"):
        return spec
    # a named device is not checked here: a corpus can be filtered on a machine without its GPU
    device = pick_device("auto") if spec.device == "auto" else spec.device
    dtype = {"dtype": pick_dtype(spec.dtype, device)} if hasattr(spec, "dtype") else {}
    return spec.model_copy(update={"device": device, **dtype})


def count_loader_threads(*, gpu: bool) -> int:
    """The number of loader threads of a worker: its share of the cores with a GPU, few without."""
    return max(CPU_THREADS, cores() // max(1, len(visible_gpus()))) if gpu else CPU_THREADS
