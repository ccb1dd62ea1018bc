"""A pretend GPU: tensors that say they are on another device and are computed on the CPU, with a GPU's rules.

An operation on tensors of both devices raises, as does reading such a tensor from numpy, an index that is on
another device than a CPU tensor, or drawing with the generator of another device. Importing this module
registers the device `pretend` for the rest of the process; STYLEAR_TEST_DEVICE=pretend runs the tests on it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

import stylear.device

NAME = "pretend"
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
INDEXED = (  # a tensor of the device takes indices of the CPU
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default,
)  # fmt: skip

recorders: list[Any] = []  # the captures under way: each runs what is called in place of `call`


class PretendTensor(torch.Tensor):
    """A tensor on the pretend GPU; its numbers are in `inner`, a tensor on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> PretendTensor:
        with torch.inference_mode(
            False
        ):  # a view of a tensor made outside is none of inference mode
            wrapper: PretendTensor = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=torch.device(NAME, 0),
            )
        wrapper.inner = inner
        return wrapper

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendTensor({self.inner!r})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.numpy:
            raise TypeError("can't convert a tensor of this device to numpy")
        if func in (torch.Tensor.data_ptr, torch.Tensor.tolist):
            return func(args[0].inner)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            place = args[1] if isinstance(args[1], tuple) else (args[1],)
            chosen = [make_cpu_tensor(i) if isinstance(i, list) else i for i in place]
            args = (args[0], tuple(chosen), *args[2:])
        if func == torch.Tensor.data.__set__:
            args[0].inner = args[1].inner
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run_operation(func, args, kwargs or {})


def run_operation(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU; its results are on the device if its tensors are, or as it is asked to."""
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    inside = [value for value in tensors if isinstance(value, PretendTensor)]
    is_inside = bool(inside)
    if kwargs.get("device") is not None:
        is_inside = torch.device(kwargs["device"]).type == NAME
        kwargs = {**kwargs, "device": "cpu"}
    elif func is aten.copy_.default:
        is_inside = isinstance(args[0], PretendTensor)
    require_same_device(func, args, tensors)
    generator = kwargs.get("generator")
    if is_inside and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{func}: expected a generator of the device, found one of the CPU")
    is_crossing = len(inside) < len(tensors) or is_inside != bool(inside)
    if recorders and func in COPIES and is_crossing:
        raise RuntimeError(f"{func}: a copy between devices is not permitted in a capture")
    run = recorders[-1] if recorders else call
    result = run(func, tree_map(unwrap, args), tree_map(unwrap, kwargs))
    if func is aten._to_copy.default and result is args[0]:
        result = result.clone()
    if not is_inside:
        return result
    known = {id(value.inner): value for value in inside}
    return tree_map(lambda value: wrap(value, known), result)


def call(func: Any, args: Any, kwargs: Any) -> Any:
    return func(*args, **kwargs)


def require_same_device(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """Raise as torch does for tensors of both devices; a single number may be on the CPU."""
    outside = [t for t in tensors if not isinstance(t, PretendTensor)]
    if not outside or len(outside) == len(tensors) or func in COPIES:
        return
    if func in INDEXED and isinstance(args[0], PretendTensor):
        outside = [t for t in outside if not any(t is index for index in args[1])]
    if any(t.dim() > 0 or t is tensors[0] for t in outside):
        shapes = ", ".join(f"{tuple(t.shape)} on {t.device}" for t in tensors)
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, found {shapes}")


def unwrap(value: Any) -> Any:
    return value.inner if isinstance(value, PretendTensor) else value


def wrap(value: Any, known: dict[int, PretendTensor]) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, PretendTensor):
        return value
    return known[id(value)] if id(value) in known else PretendTensor(value)


class DeviceModule(_DummyBackendModule):  # type: ignore[misc]
    """What torch asks a device's module for."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def make_tensor(data: Any, *, device: Any = None, **options: Any) -> Tensor:
    """`torch.tensor`, which cannot make one on a device of Python."""
    made = make_cpu_tensor(data, **options)
    return made if device is None else made.to(device)


def register_device() -> None:
    """Register the device with torch, for all threads of this process."""
    _setup_privateuseone_for_python_backend(NAME, DeviceModule())
    torch.tensor = make_tensor
    LIBRARY.fallback(lambda func, *args, **kwargs: run_operation(func, args, kwargs), "PrivateUse1")
    LIBRARY.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")  # it casts nothing
    # a module moves to the device by new tensors, not by new memory of the old ones
    torch.__future__.set_swap_module_params_on_conversion(True)
    pick_named = stylear.device.pick_device
    stylear.device.pick_device = lambda name, *setting: pick_named(
        NAME if name == "auto" else name, *setting
    )


make_cpu_tensor = torch.tensor
LIBRARY = torch.library.Library("_", "IMPL")
register_device()
