"""A file is what its content says; what cannot be read as weights is named, with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.odd_weights import ODD_FILES, TENSORS, torch_bytes, write_odd_file
from safetensors.torch import save

from stylear.errors import WeightsError
from stylear.weights.files import read_json, read_tensors
from stylear.weights.formats import recognise_format, require_weights

MODEL = "model.safetensors"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize("ending", [".safetensors", ".bin", ".ckpt"])
@pytest.mark.parametrize("name", ODD_FILES)
def test_what_is_no_weights_file_is_named_with_the_way_out(
    tmp_path: Path, name: str, ending: str
) -> None:
    path = write_odd_file(tmp_path, name, ending)
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    _, description, hint = ODD_FILES[name]
    assert caught.value.message.startswith(f"{path}: expected weights")
    assert description in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_directory_is_named_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.bin").touch()
    with pytest.raises(WeightsError, match=r"found a directory with a\.bin") as caught:
        read_tensors(tmp_path)
    assert caught.value.hint == "name the weights file in it"


@pytest.mark.parametrize(
    ("name", "content", "warning"),
    [
        ("w.safetensors", save(TENSORS), ""),
        ("w.bin", torch_bytes(TENSORS), ""),
        ("w.pt", torch_bytes(TENSORS, legacy=True), ""),
        ("w.bin", save(TENSORS), "named .bin, read as a safetensors file"),
        ("w", save(TENSORS), "named without an ending, read as a safetensors file"),
        ("w.safetensors", torch_bytes(TENSORS), "named .safetensors, read as a torch checkpoint"),
    ],
)
def test_content_decides_how_a_file_is_read_and_a_wrong_ending_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, warning: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert torch.equal(read_tensors(path)["weight"], TENSORS["weight"])
    assert capsys.readouterr().err == (f"warning: {path}: {warning}\n" if warning else "")


def test_a_library_that_goes_by_endings_gets_no_file_of_another_format(tmp_path: Path) -> None:
    path = tmp_path / MODEL
    path.write_bytes(torch_bytes(TENSORS))
    assert require_weights(path).kind == "torch"
    with pytest.raises(
        WeightsError, match="the format of its extension, found a torch check"
    ) as caught:
        require_weights(path, by_ending=True)
    assert caught.value.hint == "rename it to model.bin"


def test_a_damaged_header_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / MODEL
    for header in (b"{]", b'{"w": 3}', b'{"w": {"data_offsets": [0]}}'):
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
        assert recognise_format(path).description == "a safetensors file with a damaged header"


def write_index(folder: Path) -> Path:
    index = folder / "model.safetensors.index.json"
    index.write_text(f'{{"weight_map": {{"a": "{FIRST}", "b": "{SECOND}"}}}}')
    (folder / FIRST).write_bytes(save({"a": torch.ones(1)}))
    return index


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = write_index(tmp_path)
    with pytest.raises(WeightsError) as caught:
        read_tensors(index)
    assert caught.value.message == f"{index}: expected 2 shards beside it, missing {SECOND}"
    assert caught.value.hint == f"copy or download {SECOND} into {tmp_path}"
    (tmp_path / SECOND).write_bytes(save({"b": torch.zeros(1)}))
    assert read_tensors(index).keys() == {"a", "b"}


def test_one_shard_alone_is_not_taken_for_the_model(tmp_path: Path) -> None:
    index = write_index(tmp_path)
    with pytest.raises(WeightsError, match="found shard 1 of 2") as caught:
        read_tensors(tmp_path / FIRST)
    assert caught.value.hint == "name model.safetensors.index.json instead"
    index.unlink()
    with pytest.raises(WeightsError) as caught:
        read_tensors(tmp_path / FIRST)
    assert "copy all shards and model.safetensors.index.json" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["pointer", "page", "empty"])
def test_a_config_that_is_something_else_is_named(tmp_path: Path, name: str) -> None:
    path = write_odd_file(tmp_path, name, ".json")
    with pytest.raises(WeightsError) as caught:
        read_json(path)
    assert f"{path}: expected JSON, found {ODD_FILES[name][1]}" in caught.value.message
    assert ODD_FILES[name][2] in (caught.value.hint or "")
