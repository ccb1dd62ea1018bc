"""Names become files, files become tensors, and a bad file is a sentence."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from stylear.errors import StorageError, WeightsError
from stylear.weights import files as weights
from stylear.weights import names


def test_name_means_a_path_or_a_mini_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mini-thing").mkdir()
    monkeypatch.setattr(names, "MINI_MODELS", tmp_path)
    assert names.resolve_model("mini-thing") == tmp_path / "mini-thing"
    assert names.resolve_model(tmp_path) == tmp_path.resolve()
    for name in ("mini-other", "../x", "org/model"):
        with pytest.raises(WeightsError, match="or one of mini-thing, found nothing") as caught:
            names.resolve_model(name)
        assert "`stylear models list`" in (caught.value.hint or "")


def test_hash_of_file_and_directory(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    expected = hashlib.sha256(b"abc").hexdigest()
    assert weights.hash_path(tmp_path / "a") == expected
    line = f"a\0{expected}\n".encode()
    assert weights.hash_path(tmp_path) == hashlib.sha256(line).hexdigest()


def test_equal_tensors_give_equal_bytes_whatever_their_order(tmp_path: Path) -> None:
    one, two = torch.randn(3, 4), torch.randn(5)
    weights.write_tensors(tmp_path / "a.safetensors", {"x": one, "y": two})
    weights.write_tensors(tmp_path / "b.safetensors", {"y": two, "x": one.T.contiguous().T})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert torch.equal(weights.read_tensors(tmp_path / "a.safetensors")["x"], one)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_shared_and_integer_tensors_can_be_written_as_half(tmp_path: Path) -> None:
    value = torch.ones(2)
    path = tmp_path / "x.safetensors"
    weights.write_tensors(path, {"a": value, "b": value, "n": torch.tensor([7])}, dtype=torch.half)
    tensors = weights.read_tensors(path)
    assert (tensors["a"].dtype, tensors["n"].dtype) == (torch.float16, torch.int64)


def test_torch_files_are_read_without_running_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"w": torch.ones(1)}, "x": Evil()}, path)
    with pytest.raises(WeightsError, match=r"evil\.ckpt: cannot be read"):
        weights.read_tensors(path)
    assert not (tmp_path / "owned").exists()
    torch.save({"model": {"w": torch.ones(1)}, "epoch": 3}, path)
    assert weights.read_tensors(path).keys() == {"w"}


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_cut_off_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(WeightsError, match="expected a weights file, found nothing"):
        weights.read_tensors(path)
    if path.suffix == ".pth":
        torch.save({"w": torch.ones(100)}, path)
    else:
        weights.write_tensors(path, {"w": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(WeightsError, match=f"{name}: expected weights .*cut off"):
        weights.read_tensors(path)


def test_index_may_only_name_files_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"w": "../outside.safetensors"}}')
    with pytest.raises(WeightsError, match="file names beside it"):
        weights.read_tensors(path)
    path.write_text("[1]")
    with pytest.raises(WeightsError, match="expected a JSON object, found list"):
        weights.read_tensors(path)


def test_loading_names_the_key_expected_and_found() -> None:
    with torch.device("meta"):
        module = nn.Linear(3, 2)
    good = {"weight": torch.ones(2, 3, dtype=torch.half), "bias": torch.zeros(2)}
    with pytest.raises(WeightsError, match=r"m: .*: bias expected 2, found nothing$"):
        weights.load_into(module, {"weight": good["weight"]}, what="m")
    with pytest.raises(WeightsError, match="weight expected 2x3, found 3x2"):
        weights.load_into(module, good | {"weight": torch.ones(3, 2)}, what="m")
    with pytest.raises(WeightsError, match=r"extra expected nothing, found 1$"):
        weights.load_into(module, good | {"extra": torch.ones(1)}, what="m")
    weights.load_into(module, good, what="m")
    assert module.weight.dtype == torch.float32
    assert module.weight.requires_grad
    assert module(torch.ones(1, 3)).tolist() == [[3.0, 3.0]]
    module.bias.data.fill_(5.0)
    assert good["bias"].tolist() == [0.0, 0.0]


def test_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def interrupted() -> None:
        with weights.replace_directory(target) as temp:
            (temp / "config.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with weights.replace_directory(target) as temp:
        (temp / "config.json").write_text("{}")
    assert [p.name for p in target.iterdir()] == ["config.json"]
    (tmp_path / "file").write_text("x")
    context = weights.replace_directory(tmp_path / "file")
    with pytest.raises(
        StorageError, match="file: expected an empty directory or a model directory"
    ):
        context.__enter__()
