"""LoRA's settings apply to a plain model, and have to fit the LoRA that a model has already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from builders.tiny_model import write_tiny_base
from builders.tiny_training import sft_settings

from stylear.errors import UsageError
from stylear.model.lora import lora_layers, lora_parameters
from stylear.model.open import load_model
from stylear.model.style_model import StyleModel
from stylear.train.settings import SftSettings
from stylear.train.trainable import compile_blocks, prepare_lora, seed_dropout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trainable")
    write_tiny_base(root / "model")
    return root


@pytest.fixture
def model(place: Path) -> StyleModel:
    return load_model(place / "model")


def settings(place: Path, **more: object) -> SftSettings:
    return sft_settings(place, "unused", **more)


def test_flags_win_over_the_file_of_peft(place: Path, model: StyleModel, tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(
        json.dumps({"r": 8, "lora_alpha": 32, "target_modules": ["q_proj"], "use_rslora": True})
    )
    prepare_lora(model, settings(place, lora_config=path, lora_rank=2, lora_dropout=0.5))
    layers = dict(lora_layers(model.decoder))
    assert {name.rpartition(".")[2] for name in layers} == {"q_proj"}
    for layer in layers.values():
        assert (layer.rank, layer.alpha, layer.dropout) == (2, 32.0, 0.5)
        assert layer.scale == pytest.approx(32 / 2**0.5)


def test_other_lora_than_the_models_is_refused(place: Path, model: StyleModel) -> None:
    prepare_lora(model, settings(place, lora_rank=2, lora_targets=["q_proj", "v_proj"]))
    before = lora_parameters(model.decoder)
    prepare_lora(model, settings(place))
    prepare_lora(model, settings(place, lora_rank=2, lora_targets=["v_proj", "q_proj"]))
    assert all(a is b for a, b in zip(before, lora_parameters(model.decoder), strict=True))
    with pytest.raises(
        UsageError, match="lora_rank: expected 2 as the adapter of model has, found 4"
    ):
        prepare_lora(model, settings(place, lora_rank=4))
    with pytest.raises(
        UsageError, match=r"lora_targets: expected q_proj, v_proj as .* found k_proj"
    ):
        prepare_lora(model, settings(place, lora_targets=["k_proj"]))


def test_a_target_that_no_layer_has_is_named(place: Path, model: StyleModel) -> None:
    with pytest.raises(UsageError, match=r"lora_targets: .* no layer is named 'x_proj'"):
        prepare_lora(model, settings(place, lora_targets=["x_proj"]))


def test_dropout_of_a_part_depends_on_seed_step_and_part() -> None:
    draws = []
    for arguments in ((0, 1, 2), (0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3)):
        seed_dropout(*arguments)
        draws.append(torch.rand(4).tolist())
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 4


def test_compiled_blocks_share_one_graph_and_give_the_same(model: StyleModel) -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    ids = torch.arange(10).view(2, 5)
    with torch.no_grad():
        expected = model.decoder(model.decoder.embed(ids))
        counter = CompileCounterWithBackend("eager")
        compile_blocks(model, counter)
        found = model.decoder(model.decoder.embed(ids))
    assert torch.equal(found, expected)
    assert counter.frame_count == 1
    torch._dynamo.reset()
