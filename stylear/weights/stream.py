"""Stream weights from safetensors into a module: one tensor at a time, so that main memory holds only one.

`read_tensors` holds all of a checkpoint, which for 7 B parameters is 14 GB before the first layer is built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylear.console import ByteBar
from stylear.errors import WeightsError
from stylear.weights.files import (
    BAR_BYTES,
    read_tensors,
    read_weight_map,
    require_same_tensors,
)
from stylear.weights.formats import (
    COPY_AGAIN,
    SAFETENSORS,
    recognise_format,
    refuse_single_shard,
    require_weights,
)
from stylear.weights.memory import require_memory
from stylear.weights.state_dict import cast_fp8, strip_wrappers

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
Select = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """The location of a tensor on disk."""

    file: Path
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def read(self, stream: BufferedReader) -> Tensor:
        """The tensor, in memory of its own. Raises WeightsError if the file has become shorter."""
        data = torch.empty(self.num_bytes, dtype=torch.uint8)
        buffer: Any = data.numpy()
        stream.seek(self.start)
        if stream.readinto(buffer) != self.num_bytes:
            raise WeightsError(f"{self.file}: was truncated while it was read", hint=COPY_AGAIN)
        return data.view(self.dtype).view(self.shape)


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of safetensors files by name; each is read whenever it is asked for."""

    def __init__(self, entries: Mapping[str, StoredTensor]) -> None:
        self.entries = dict(entries)

    def __getitem__(self, name: str) -> Tensor:
        entry = self.entries[name]
        with entry.file.open("rb") as stream:
            return entry.read(stream)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def read_in_order(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors in the order of files and offsets."""
        order = sorted(self.entries.items(), key=lambda item: (str(item[1].file), item[1].start))
        with ExitStack() as stack:
            streams: dict[Path, BufferedReader] = {}
            for name, entry in order:
                if entry.file not in streams:
                    streams[entry.file] = stack.enter_context(entry.file.open("rb"))
                yield name, entry.read(streams[entry.file])


def open_tensors(path: str | Path, roots: tuple[str, ...] = ()) -> Mapping[str, Tensor]:
    """The tensors of a weights file or of the shards of an `.index.json`, read when they are asked for.

    Torch checkpoints and fp8 weights are read whole, by `read_tensors`. Raises WeightsError as it does.
    """
    path = Path(path)
    if path.is_file() and path.name.endswith(".index.json"):
        parts = read_weight_map(path)
        files = [path.parent / shard for shard in sorted(set(parts.values()))]
    else:
        refuse_single_shard(path)
        parts, files = {}, [path]
    for file in files:
        require_weights(file)
    if any(recognise_format(file).kind != SAFETENSORS for file in files):
        return read_tensors(path, roots)
    entries: dict[str, StoredTensor] = {}
    for file in files:
        header = read_header(file)
        if header is None:
            return read_tensors(path, roots)
        entries |= header
    missing = sorted(set(parts) - set(entries))
    if missing:
        raise WeightsError(f"{path}: {missing[0]} expected in {parts[missing[0]]}, found nothing")
    shapes = describe_shapes(StoredTensors(entries))
    original = {id(shape): name for name, shape in shapes.items()}
    stripped = strip_wrappers(shapes, roots)
    cast_fp8(stripped, str(path))  # refuses quantised weights
    return StoredTensors({name: entries[original[id(shape)]] for name, shape in stripped.items()})


def read_header(path: Path) -> dict[str, StoredTensor] | None:
    """The tensors of a safetensors file by its header; None for a dtype that torch does not compute with.

    Raises WeightsError if the header contradicts itself.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    entries: dict[str, StoredTensor] = {}
    for name, value in header.items():
        try:
            dtype, shape = value["dtype"], tuple(int(side) for side in value["shape"])
            start, end = (8 + length + int(offset) for offset in value["data_offsets"])
        except (KeyError, TypeError, ValueError):
            raise WeightsError(f"{path}: {name}: damaged header", hint=COPY_AGAIN) from None
        if dtype not in DTYPES:
            return None
        entry = StoredTensor(path, start, DTYPES[dtype], shape)
        if (
            min(shape, default=0) < 0
            or start < 8 + length
            or end > size
            or end - start != entry.num_bytes
        ):
            raise WeightsError(
                f"{path}: {name}: expected {entry.num_bytes} bytes within the file, "
                f"found the offsets {start} to {end} of {size}",
                hint=COPY_AGAIN,
            )
        entries[name] = entry
    return entries


def describe_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the meta device: names, shapes and dtypes. Stored tensors are not read."""
    if isinstance(tensors, StoredTensors):
        return {
            name: torch.empty(entry.shape, dtype=entry.dtype, device="meta")
            for name, entry in tensors.entries.items()
        }
    return {name: value.to("meta") for name, value in tensors.items()}


def stream_into(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    what: str,
    select: Select = dict,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> None:
    """Set the weights of a module built on the meta device, tensor by tensor, as `dtype` on `device`.

    `select` maps each stored tensor to those of the module: it may rename, reshape or drop it, and is called
    with one tensor at a time. A checkpoint of BAR_BYTES or more shows a progress bar. Nothing is read before
    names, shapes and memory are checked: raises WeightsError listing the tensors that are missing, surplus or
    of another shape, or saying how much memory is missing and what would fit.
    """
    expected = module.state_dict()
    shapes = describe_shapes(tensors)
    selected = {name: select({name: shape}) for name, shape in shapes.items()}
    parts_by_target = {
        target: part for parts in selected.values() for target, part in parts.items()
    }
    require_same_tensors(expected, parts_by_target, what)
    require_memory(sum(value.numel() for value in expected.values()), dtype, device, what)
    stored = isinstance(tensors, StoredTensors)
    names = [name for name, parts in selected.items() if parts]  # what is dropped is not read
    items: Iterable[tuple[str, Tensor]]
    if isinstance(tensors, StoredTensors):
        items = StoredTensors({name: tensors.entries[name] for name in names}).read_in_order()
    else:
        items = ((name, tensors[name]) for name in names)
    total = sum(shapes[name].numel() * shapes[name].dtype.itemsize for name in names)
    with ByteBar("load", total if total >= BAR_BYTES else 0) as bar:
        for name, value in items:
            count = value.numel() * value.dtype.itemsize
            for target, part in select({name: value}).items():
                # a copy unless it was just read: no weight shares memory with another module
                part = part.to(device=device, dtype=dtype, copy=not stored).contiguous()
                _assign(module, target, part)
                del part  # before the next tensor is read
            del value
            bar.advance_bytes(count)


def _assign(module: nn.Module, name: str, value: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    old = getattr(owner, leaf)
    if isinstance(old, nn.Parameter):
        value = nn.Parameter(value, requires_grad=old.requires_grad)
    setattr(owner, leaf, value)
