"""Files of a model: tensors and JSON read and written, hashes, atomic writes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.console import ByteBar
from stylear.errors import StorageError, WeightsError

if TYPE_CHECKING:  # torch is imported where tensors are: names and hashes need none
    import torch
    from torch import Tensor, nn

LISTED = 8  # names in a message
BAR_BYTES = 500 * 10**6  # our choice: smaller checkpoints show no progress bar


def hash_path(path: str | Path, on_bytes: Callable[[int], None] = lambda count: None) -> str:
    """Hash a file, or the names and contents of a directory's files, as 64 hex digits.

    `on_bytes` is called with the number of bytes that were read.
    """
    path = Path(path)
    total = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            name = file.relative_to(path).as_posix()
            total.update(f"{name}\0{hash_path(file, on_bytes)}\n".encode())
        return total.hexdigest()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            total.update(chunk)
            on_bytes(len(chunk))
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
    """The JSON object in a file. Raises WeightsError if the file is missing or holds something else."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise WeightsError(
            f"{path}: expected this file in the model directory, found nothing",
            hint="check that the path is a complete model directory",
        ) from None
    except ValueError as error:
        from stylear.weights.formats import recognise_format

        file_format = recognise_format(path)
        problem = (
            str(error)
            if file_format.kind in ("json", "text", "unknown")
            else file_format.description
        )
        raise WeightsError(
            f"{path}: expected JSON, found {problem}",
            hint=file_format.remedy if problem != str(error) else None,
        ) from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_tensors(path: str | Path, roots: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Every tensor in a safetensors file, a torch checkpoint, or the shards of an `.index.json`.

    The format is recognised by content, torch files are read with weights_only=True, levels such as
    `state_dict` and prefixes such as `module.` are taken off (`roots` are what names of the wanted model
    begin with), fp8 becomes float16. Raises WeightsError that says what the file is instead, and what to do.
    """
    from stylear.weights.formats import refuse_single_shard
    from stylear.weights.state_dict import cast_fp8, strip_wrappers

    path = Path(path)
    if path.is_file() and path.name.endswith(".index.json"):
        tensors = _read_sharded(path)
    else:
        refuse_single_shard(path)
        tensors = _read_file(path)
    return cast_fp8(strip_wrappers(tensors, roots), str(path))


def _read_file(path: Path) -> dict[str, Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from stylear.weights.formats import COPY_AGAIN, SAFETENSORS, require_weights, warn_wrong_ending
    from stylear.weights.state_dict import find_state_dict

    file_format = require_weights(path)
    warn_wrong_ending(path, file_format)
    try:
        if file_format.kind == SAFETENSORS:
            loaded: Any = load_file(path)
        else:
            with path.open("rb") as stream:  # given a path, torch goes by its ending
                loaded = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: cannot be read: {explain_unpickling(error)}",
            hint="only tensors are read; save just the tensors where the file was made: "
            "safetensors.torch.save_file(model.state_dict(), FILE)",
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise WeightsError(f"{path}: cannot be read: {reason}", hint=COPY_AGAIN) from error
    return find_state_dict(loaded, str(path))


def explain_unpickling(error: pickle.UnpicklingError) -> str:
    """Why torch refused a checkpoint, without its advice to run what the file holds."""
    lines = str(error.__context__ or error).strip().splitlines()
    first = lines[0] if lines else type(error).__name__
    return first.partition(" Please use `torch.serialization")[0]


def hash_weights(file: Path) -> str:
    """SHA-256 of a weights file; of an index, that of the hashes of its shards.

    Files of BAR_BYTES or more together show a progress bar.
    """
    is_index = file.name.endswith(".index.json")
    shards = sorted(set(read_weight_map(file).values())) if is_index else [file.name]
    total = sum((file.parent / shard).stat().st_size for shard in shards)
    with ByteBar("check", total if total >= BAR_BYTES else 0) as bar:
        hashes = {shard: hash_path(file.parent / shard, bar.advance_bytes) for shard in shards}
    if not is_index:
        return hashes[file.name]
    lines = (f"{shard}\0{sha256}\n" for shard, sha256 in hashes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_weight_map(index: Path) -> dict[str, str]:
    """The shard of each tensor, by an `.index.json`. Raises WeightsError naming shards that are not there."""
    from stylear.weights.formats import require_shards

    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{index}: expected a `weight_map`, found none")
    shards = {str(name): str(shard) for name, shard in weight_map.items()}
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard:
            raise WeightsError(f"{index}: expected file names beside it, found {shard!r}")
    require_shards(index, set(shards.values()))
    return shards


def _read_sharded(index: Path) -> dict[str, Tensor]:
    parts = read_weight_map(index)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(parts.values())):
        tensors.update(_read_file(index.parent / shard))
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
    """Set `tensors` as the module's weights on `device`, cast to `dtype` (float32 by default).

    Works on a module built on the meta device. Raises WeightsError listing the keys that are missing, unknown
    or of another shape, with the shapes expected and found; `what` names the source of the tensors.
    """
    import torch

    expected = module.state_dict()
    require_same_tensors(expected, tensors, what)
    dtype = torch.float32 if dtype is None else dtype
    # a copy, so that no weight shares memory with a file or with another module
    cast = {
        name: tensors[name].to(device=device, dtype=dtype, copy=True).contiguous()
        for name in expected
    }
    module.load_state_dict(cast, assign=True)


def require_same_tensors(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], what: str, hint: str | None = None
) -> None:
    """Raise WeightsError listing the tensors that are missing, surplus or of another shape, with both shapes.

    `what` names the source of `found`.
    """
    problems = [
        f"{name} expected {_shape(value)}, found {_shape(found.get(name))}"
        for name, value in expected.items()
        if name not in found or found[name].shape != value.shape
    ]
    problems += [
        f"{name} expected nothing, found {_shape(value)}"
        for name, value in found.items()
        if name not in expected
    ]
    if problems:
        raise WeightsError(
            f"{what}: weights of another model: {list_some(problems, '; ')}",
            hint=hint or "the weights and the config beside them must belong to the same model",
        )


def list_some(items: Sequence[str], separator: str = ", ") -> str:
    """The first LISTED items and the number of the others, for a message."""
    more = f" (and {len(items) - LISTED} more)" if len(items) > LISTED else ""
    return separator.join(items[:LISTED]) + more


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

    `metadata` replaces {"format": "pt"}; give at most one key, because the order of several is undefined.
    """
    from safetensors.torch import save_file

    path = Path(path)
    ready: dict[str, Tensor] = {}
    memories: set[int] = set()
    for name in sorted(tensors):
        value = tensors[name].detach().to("cpu")
        if dtype is not None and value.is_floating_point():
            value = value.to(dtype)
        memory = value.untyped_storage()
        # safetensors takes no two tensors of one memory, and nothing but whole tensors in order
        if memory.data_ptr() in memories or memory.nbytes() != value.nbytes:
            value = value.clone()
        memories.add(memory.data_ptr())
        ready[name] = value.contiguous()
    with _write_atomically(path) as temp:
        save_file(ready, temp, metadata=dict(metadata or {"format": "pt"}))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, keys in their order in `value`."""
    write_bytes(path, (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: temp file beside it, fsync, rename."""
    with _write_atomically(path) as temp:
        temp.write_bytes(data)


@contextmanager
def _write_atomically(path: Path) -> Iterator[Path]:
    """A temporary file that is renamed to `path` if the block succeeds."""
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
def replace_directory(target: Path) -> Iterator[Path]:
    """A temporary directory that replaces `target` if the block succeeds.

    Raises StorageError if `target` exists and is not a model directory.
    """
    target = Path(target).absolute()
    if target.exists() and not (target.is_dir() and _is_replaceable(target)):
        raise StorageError(
            f"{target}: expected an empty directory or a model directory, found other files",
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


def _is_replaceable(directory: Path) -> bool:
    return (directory / "config.json").is_file() or not any(directory.iterdir())


def _remove(directory: Path) -> None:
    import shutil

    shutil.rmtree(directory, ignore_errors=True)
