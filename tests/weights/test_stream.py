"""Streamed weights: one tensor in memory at a time, checked before any is read."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stylear.errors import WeightsError
from stylear.weights import memory
from stylear.weights.files import hash_weights, read_tensors
from stylear.weights.stream import StoredTensor, StoredTensors, open_tensors, stream_into


def write_shards(folder: Path, parts: list[dict[str, Tensor]]) -> Path:
    """Shards with their index; returns the index."""
    names = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        save_file(part, folder / file)
        names |= dict.fromkeys(part, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    return index


def build(layers: int, side: int = 4) -> nn.Module:
    with torch.device("meta"):
        return nn.ModuleList(nn.Linear(side, side) for _ in range(layers))


def draw(layers: int, side: int = 4, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    state = build(layers, side).state_dict()
    return {name: torch.randn(value.shape).to(dtype) for name, value in state.items()}


def test_shards_are_loaded_as_the_whole_file_would_be(tmp_path: Path) -> None:
    tensors = draw(3, dtype=torch.float16)
    names = sorted(tensors)
    parts = [{name: tensors[name] for name in group} for group in (names[:2], names[2:])]
    index = write_shards(tmp_path, parts)
    module = build(3)
    module.requires_grad_(False)
    stream_into(module, open_tensors(index), what="m", dtype=torch.bfloat16)
    state = module.state_dict()
    assert {name: value.dtype for name, value in state.items()} == dict.fromkeys(
        tensors, torch.bfloat16
    )
    assert all(torch.equal(state[name], value.bfloat16()) for name, value in tensors.items())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    stored = open_tensors(index)
    assert isinstance(stored, StoredTensors)
    assert stored.keys() == read_tensors(index).keys()
    assert torch.equal(stored[names[0]], tensors[names[0]])


def test_no_two_stored_tensors_are_in_memory_at_once(tmp_path: Path) -> None:
    """20 tensors of 4 MB; the target is the meta device, where nothing of them stays."""
    tensors = {f"{i}.weight": torch.zeros(1024, 1024) for i in range(20)}
    index = write_shards(tmp_path, [tensors])
    with torch.device("meta"):
        module = nn.ModuleList(nn.Linear(1024, 1024, bias=False) for _ in range(20))
    read: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def watch(part: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        ((name, value),) = part.items()
        if not value.is_meta:
            alive.append(sum(one() is not None for one in read))
            read.append(weakref.ref(value))
        return {name: value}

    stream_into(module, open_tensors(index), what="m", select=watch, device="meta")
    assert alive == [0] * 20


def test_a_large_checkpoint_shows_what_is_checked_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stylear.weights.files.BAR_BYTES", 10**6)
    monkeypatch.setattr("stylear.weights.stream.BAR_BYTES", 10**6)
    tensors = draw(2, side=600)
    names = sorted(tensors)
    index = write_shards(tmp_path, [{name: tensors[name] for name in names}])
    hash_weights(index)
    stream_into(build(2, side=600), open_tensors(index), what="m")
    check, load = capsys.readouterr().err.splitlines()
    assert check.startswith("check: 3/3 MB, ")
    assert load.startswith("load: 3/3 MB, ")


def test_prefixes_of_wrappers_and_dropped_tensors_are_as_in_whole_files(tmp_path: Path) -> None:
    tensors = draw(1)
    path = tmp_path / "m.safetensors"
    save_file({f"module.{n}": v for n, v in tensors.items()} | {"module.old": torch.ones(1)}, path)
    module = build(1)

    def select(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in part.items() if name != "old"}

    stream_into(module, open_tensors(path, ("0.",)), what="m", select=select)
    assert torch.equal(module.state_dict()["0.weight"], tensors["0.weight"])


def test_what_is_dropped_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, module = tmp_path / "m.safetensors", nn.Linear(2, 3, bias=False)
    save_file({"weight": torch.ones(3, 2), "tower.weight": torch.ones(9, 9)}, path)
    shapes: list[tuple[int, ...]] = []
    read = StoredTensor.read

    def watch(self: StoredTensor, stream: BufferedReader) -> Tensor:
        shapes.append(self.shape)
        return read(self, stream)

    monkeypatch.setattr(StoredTensor, "read", watch)

    def select(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in part.items() if not name.startswith("tower.")}

    stream_into(module, open_tensors(path), what="m", select=select)
    assert shapes == [(3, 2)]
    assert torch.equal(module.weight, torch.ones(3, 2))


@pytest.mark.parametrize("kind", ["torch", "fp8"])
def test_other_formats_are_loaded_too(tmp_path: Path, kind: str) -> None:
    tensors = draw(1, dtype=torch.float16)
    path = tmp_path / "m.bin"
    if kind == "torch":
        torch.save(tensors, path)
    else:
        path = tmp_path / "m.safetensors"
        tensors = {name: value.to(torch.float8_e4m3fn) for name, value in tensors.items()}
        save_file(tensors, path)
    module = build(1)
    stream_into(module, open_tensors(path), what="m")
    assert torch.equal(module.state_dict()["0.bias"], tensors["0.bias"].float())


def test_nothing_is_read_before_names_and_shapes_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = draw(2)
    tensors["2.weight"] = tensors.pop("1.weight")
    tensors["0.weight"] = torch.ones(4, 5)
    index = write_shards(tmp_path, [tensors])
    monkeypatch.setattr("stylear.weights.stream.StoredTensor.read", None)
    with pytest.raises(WeightsError) as caught:
        stream_into(build(2), open_tensors(index), what="m")
    assert caught.value.message == (
        "m: weights of another model: 0.weight expected 4x4, found 4x5; "
        "1.weight expected 4x4, found nothing; 2.weight expected nothing, found 4x4"
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"data_offsets": [0, 2**40]}, "cut off"),
        ({"data_offsets": [-64, 0]}, "expected 64 bytes within the file"),
        ({"shape": [4, 40]}, "expected 640 bytes within the file"),
        ({"shape": "x"}, "damaged header"),
        ({"dtype": None}, "damaged header"),
    ],
)
def test_a_header_that_contradicts_its_file_is_named(
    tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    entry = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]} | change
    header = json.dumps({"w": {key: value for key, value in entry.items() if value is not None}})
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(64))
    with pytest.raises(WeightsError, match=rf"m\.safetensors: .*{problem}"):
        open_tensors(path)


def test_too_little_memory_says_what_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    save_file(draw(1, side=50), path)
    free = {"cpu": 6000, "cuda": 1000}
    monkeypatch.setattr(
        memory, "measure_free_memory", lambda device: free[torch.device(device).type]
    )
    with pytest.raises(WeightsError) as caught:
        stream_into(build(1, side=50), open_tensors(path), what="m")
    assert caught.value.message.startswith("m: 0.0 B parameters in float32 expected 0.0 GB of main")
    assert (caught.value.hint or "").startswith("in half precision they fit: --dtype bfloat16")
    billion = 10**9
    free |= {"cpu": 32 * billion, "cuda": 10 * billion}
    with pytest.raises(WeightsError) as caught:
        memory.require_memory(7 * billion, torch.bfloat16, "cuda", "m")
    assert caught.value.message == (
        "m: 7.0 B parameters in bfloat16 expected 14.0 GB of GPU memory, found 10.0 GB free"
    )
    assert "--device cpu --dtype bfloat16 (14.0 GB)" in (caught.value.hint or "")
    free["cpu"] = billion
    with pytest.raises(WeightsError) as caught:
        memory.require_memory(7 * billion, torch.bfloat16, "cuda", "m")
    assert caught.value.hint == "the largest model that fits has 5.0 B parameters in bfloat16"
    assert memory.measure_free_memory("cpu") == billion
