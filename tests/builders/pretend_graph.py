"""CUDA graphs of the pretend GPU: operations are recorded, and replayed over the same memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from builders import pretend_gpu

aten = torch.ops.aten
WAITS = (aten._local_scalar_dense.default, aten.nonzero.default)  # for the GPU
ALLOCATIONS = (aten.empty.memory_format, aten.empty_strided.default)  # their memory is kept


class Graph:
    """The operations of one run, which leaves all memory as it was; `replay` runs them again."""

    def __init__(self, run: Callable[[], None], pool: Any, device: torch.device) -> None:
        self.steps: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self.replays = 0
        pretend_gpu.recorders.append(self.record)
        try:
            run()
        finally:
            pretend_gpu.recorders.pop()
        for memory, copy in self._before.values():
            memory.copy_(copy)

    def record(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation and keep it. Raises RuntimeError if it waits for the GPU."""
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        is_boolean = func is aten.index.Tensor and any(t.dtype == torch.bool for t in tensors[1:])
        if func in WAITS or is_boolean:
            raise RuntimeError(f"{func}: operation not permitted when stream is capturing")
        for value in tensors if func._schema.is_mutable else ():
            memory = value.untyped_storage()
            if memory.data_ptr() not in self._before:
                whole = torch.empty(0, dtype=torch.uint8).set_(memory)
                self._before[memory.data_ptr()] = (whole, whole.clone())
        result = func(*args, **kwargs)
        known = {value.untyped_storage().data_ptr() for value in tensors}
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        new = [value for value in made if value.untyped_storage().data_ptr() not in known]
        if func not in ALLOCATIONS:
            self.steps.append((func, args, kwargs, new))
        return result

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, new in self.steps:
            result = func(*args, **kwargs)
            made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
            for old, value in zip(new, made if new else (), strict=True):
                old.copy_(value)

    def pool(self) -> str:
        return "pool"
