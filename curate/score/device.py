"""Where a model runs and in which precision, decided once, by the process that plans the work."""

from __future__ import annotations

from typing import Any

from stylear.curate.engine import cores
from stylear.curate.engine.gpus import visible_gpus
from stylear.device import pick_device

CPU_THREADS = 2  # that load beside a model on the CPU (ours)


def pick_dtype(dtype: str, device: str) -> str:
    """`auto` as float32 on a CPU, as bfloat16 elsewhere."""
    if dtype != "auto":
        return dtype
    return "float32" if device == "cpu" else "bfloat16"


def resolve_device(spec: Any) -> Any:
    """A scorer's settings with `auto` decided; settings without a device are as they were."""
    if not hasattr(spec, "device"):
        return spec
    # a device that is named is not asked for here: a corpus can be filtered where its GPU is not
    device = pick_device("auto") if spec.device == "auto" else spec.device
    dtype = {"dtype": pick_dtype(spec.dtype, device)} if hasattr(spec, "dtype") else {}
    return spec.model_copy(update={"device": device, **dtype})


def loading_threads(*, gpu: bool) -> int:
    """Threads that load for one worker: its share of the cores beside a GPU, few beside a busy CPU."""
    return max(CPU_THREADS, cores() // max(1, len(visible_gpus()))) if gpu else CPU_THREADS
