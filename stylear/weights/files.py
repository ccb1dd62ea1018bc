"""Weights: a model's name to files, tensors in and out of files, hashes; errors name the key."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.errors import StorageError, WeightsError

if TYPE_CHECKING:  # torch is imported where tensors are: names and hashes need none
    import torch
    from torch import Tensor, nn


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, or of a directory's file names and contents, as 64 hex digits."""
    path = Path(path)
    total = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            total.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
        return total.hexdigest()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors: names, types, shapes and every byte, in the order of the names."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().to("cpu").contiguous()
        total.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a model's file. Raises WeightsError when missing or not an object."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise WeightsError(
            f"{path}: expected this file in the model directory, found nothing",
            hint="check that the path is a complete model directory",
        ) from None
    except ValueError as error:
        raise WeightsError(f"{path}: expected JSON, found {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Every tensor in a .safetensors file, a sharded `.index.json`, or a torch checkpoint.

    Torch files are read with weights_only=True; a `state_dict` or `model` level is unwrapped.
    Raises WeightsError when the file is missing or cannot be read.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: expected a weights file, found nothing")
    if path.name.endswith(".index.json"):
        return _read_sharded(path)
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{path}: cannot be read: {first}", hint="the file is corrupt or cut off; copy it again"
        ) from error
    for level in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(level), dict):
            found = found[level]
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: expected named tensors, found {type(found).__name__}")
    return {str(name): value for name, value in found.items() if torch.is_tensor(value)}


def _read_sharded(index: Path) -> dict[str, Tensor]:
    parts = read_json(index).get("weight_map")
    if not isinstance(parts, dict) or not parts:
        raise WeightsError(f"{index}: expected a `weight_map`, found none")
    tensors: dict[str, Tensor] = {}
    for part in sorted(set(parts.values())):
        if Path(part).name != part:
            raise WeightsError(f"{index}: expected file names beside it, found {part!r}")
        tensors.update(read_tensors(index.parent / part))
    missing = sorted(set(parts) - set(tensors))
    if missing:
        raise WeightsError(f"{index}: {missing[0]} expected in {parts[missing[0]]}, found nothing")
    return tensors


def load_into(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    what: str,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Make `tensors` the module's weights on `device`; every key and shape must agree.

    They become `dtype`, float32 when left out.

    Works on a module built on the meta device. Raises WeightsError naming the first key that
    differs, with the shape expected and found.
    """
    import torch

    expected = module.state_dict()
    problems = [
        f"{name} expected {_shape(expected[name])}, found {_shape(tensors.get(name))}"
        for name in expected
        if name not in tensors or tensors[name].shape != expected[name].shape
    ]
    problems += [
        f"{name} expected nothing, found {_shape(value)}"
        for name, value in tensors.items()
        if name not in expected
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WeightsError(
            f"{what}: weights of another model: {problems[0]}{more}",
            hint="the weights and the config beside them must belong to the same model",
        )
    dtype = torch.float32 if dtype is None else dtype
    # ours: a copy, so that no weight shares memory with a file or with another module
    cast = {
        name: tensors[name].to(device=device, dtype=dtype, copy=True).contiguous()
        for name in expected
    }
    module.load_state_dict(cast, assign=True)


def _shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else "x".join(map(str, tensor.shape)) or "a scalar"


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a .safetensors file atomically, floats as `dtype`; equal tensors give equal bytes.

    `metadata` stands in place of {"format": "pt"}; keep it to one key, whose order is certain.
    """
    import torch
    from safetensors.torch import save_file

    path = Path(path)
    ready = {}
    for name in sorted(tensors):
        value = tensors[name].detach().to("cpu")
        if dtype is not None and value.is_floating_point():
            value = value.to(dtype)
        ready[name] = value.clone(memory_format=torch.contiguous_format)
    with _beside(path) as temp:
        save_file(ready, temp, metadata=dict(metadata or {"format": "pt"}))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, keys in the order given."""
    write_bytes(path, (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: temp file beside it, fsync, rename."""
    with _beside(path) as temp:
        temp.write_bytes(data)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A temp file to fill; it takes the name `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temp = Path(name)
    try:
        yield temp
        with temp.open("rb+") as stream:
            os.fsync(stream.fileno())
        temp.chmod(0o644)
        temp.replace(path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


@contextmanager
def fresh_directory(target: Path) -> Iterator[Path]:
    """A temp directory that becomes `target` when the block ends well; an old `target` is replaced.

    Raises StorageError when `target` holds something that is not a model directory.
    """
    target = Path(target).absolute()
    if target.exists() and not (target.is_dir() and _replaceable(target)):
        raise StorageError(
            f"{target}: expected an empty or model directory to write to, found other files",
            hint="choose another output directory",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temp = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        temp.chmod(0o755)
        yield temp
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.replace(old / "old")
            temp.replace(target)
            _remove(old)
        else:
            temp.replace(target)
    except BaseException:
        _remove(temp)
        raise


def _replaceable(directory: Path) -> bool:
    return (directory / "config.json").is_file() or not any(directory.iterdir())


def _remove(directory: Path) -> None:
    import shutil

    shutil.rmtree(directory, ignore_errors=True)
