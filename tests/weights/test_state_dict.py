"""The same tensors are found under every level and prefix that trainers put them under."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from stylear.errors import WeightsError
from stylear.weights.files import read_tensors
from stylear.weights.state_dict import cast_fp8, strip_wrappers

PLAIN = {"layers.0.weight": torch.ones(2), "head.bias": torch.zeros(1)}
ROOTS = ("layers.",)


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in PLAIN.items()}


@pytest.mark.parametrize(
    "saved",
    [
        PLAIN,
        {"state_dict": PLAIN, "epoch": 3},
        {"model": PLAIN, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        {"ema": PLAIN, "model": None},
        {"model_state_dict": PLAIN},
        {"module": PLAIN},
        {"state_dict": {"model": PLAIN}},
        prefixed("module."),
        prefixed("model."),
        prefixed("_orig_mod."),
        prefixed("module._orig_mod.model."),
        {"state_dict": prefixed("model.")},
        {"n_averaged": torch.tensor(3), **prefixed("module.")},
    ],
)
def test_levels_and_prefixes_are_taken_off(tmp_path: Path, saved: dict[str, Any]) -> None:
    torch.save(saved, tmp_path / "w.pt")
    tensors = read_tensors(tmp_path / "w.pt", ROOTS)
    assert tensors.keys() == PLAIN.keys()
    assert torch.equal(tensors["layers.0.weight"], torch.ones(2))


def test_a_prefix_that_belongs_to_the_model_stays() -> None:
    names = {"model.layers.0": torch.ones(1), "model.norm": torch.ones(1)}
    assert strip_wrappers(names).keys() == names.keys()
    assert strip_wrappers(names, ("model.layers.",)).keys() == names.keys()
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert strip_wrappers(mixed, ("a",)).keys() == mixed.keys()


def test_dictionaries_of_tensors_become_one(tmp_path: Path) -> None:
    torch.save(
        {"image_proj": {"w": torch.ones(1)}, "ip_adapter": {"1.k": torch.ones(2)}}, tmp_path / "a"
    )
    assert read_tensors(tmp_path / "a").keys() == {"image_proj.w", "ip_adapter.1.k"}


def test_two_sets_of_weights_are_not_chosen_between(tmp_path: Path) -> None:
    path = tmp_path / "both.pt"
    torch.save({"model": PLAIN, "ema": PLAIN}, path)
    with pytest.raises(WeightsError, match="one set of weights, found model and ema") as caught:
        read_tensors(path)
    assert f"torch.load({str(path)!r}, weights_only=True)['ema']" in (caught.value.hint or "")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_fp8_value_is_kept_in_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.arange(256, dtype=torch.uint8).view(dtype)
    save_file({"w": values, "b": torch.ones(1)}, tmp_path / "w.safetensors")
    tensors = read_tensors(tmp_path / "w.safetensors")
    assert tensors["w"].dtype == torch.float16
    torch.testing.assert_close(tensors["w"].float(), values.float(), rtol=0, atol=0, equal_nan=True)
    assert tensors["b"].dtype == torch.float32


def test_scaled_fp8_weights_are_multiplied_by_their_scale() -> None:
    eight = torch.tensor([[1.0, 2.0], [4.0, 8.0]]).to(torch.float8_e4m3fn)
    tensors = cast_fp8(
        {
            "a.weight": eight, "a.scale_weight": torch.tensor(0.5), "a.scale_input": torch.ones(1),
            "b.weight": eight, "b.weight_scale": torch.tensor([[1.0], [10.0]]),
            "scaled_fp8": torch.zeros(2), "c.bias": torch.ones(1),
        },
        "w",
    )  # fmt: skip
    assert tensors.keys() == {"a.weight", "b.weight", "c.bias"}
    assert tensors["a.weight"].tolist() == [[0.5, 1.0], [2.0, 4.0]]
    assert tensors["b.weight"].tolist() == [[1.0, 2.0], [40.0, 80.0]]


def test_other_quantised_weights_are_refused() -> None:
    eight = torch.ones(2, 2).to(torch.float8_e4m3fn)
    blocks = {"a.weight": eight, "a.weight_scale_inv": torch.ones(1, 2)}
    with pytest.raises(WeightsError, match=r"w: a\.weight_scale_inv: expected one scale .* 1x2"):
        cast_fp8(blocks, "w")
    with pytest.raises(WeightsError, match=r"quantised ones \(a\.weight\.absmax\)") as caught:
        cast_fp8({"a.weight.absmax": torch.ones(1)}, "w")
    assert caught.value.hint == "use the release in float16, bfloat16 or float32"


def test_a_checkpoint_of_more_than_tensors_says_what_it_holds(tmp_path: Path) -> None:
    import argparse

    torch.save({"state_dict": PLAIN, "args": argparse.Namespace(lr=1)}, tmp_path / "w.ckpt")
    with pytest.raises(WeightsError) as caught:
        read_tensors(tmp_path / "w.ckpt")
    assert "argparse.Namespace was not an allowed global" in caught.value.message
    assert "add_safe_globals" not in caught.value.message
    assert "weights_only" not in caught.value.message
    assert "save_file(model.state_dict(), FILE)" in (caught.value.hint or "")
