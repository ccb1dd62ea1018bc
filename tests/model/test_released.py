"""Released weights: imported from the published names and exported to them again, tensor for tensor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from builders.released_weights import draw_lora, draw_resampler, write_released
from builders.tiny_clip import write_tiny_clip
from builders.tiny_model import DECODER, write_tiny_base
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from stylear.cli.models import app
from stylear.errors import WeightsError
from stylear.model import lora
from stylear.model.open import load_model
from stylear.model.released import export_peft, export_released, import_released
from stylear.model.resampler import Resampler, ResamplerConfig

HIDDEN = DECODER.hidden_size


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_clip(tmp_path_factory.mktemp("clips") / "tiny-clip"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "base"
    write_tiny_base(directory)
    return directory


@pytest.fixture(scope="module")
def vocab_size(base: Path) -> int:
    return int(json.loads((base / "config.json").read_text())["vocab_size"])


@pytest.fixture
def adapter(vocab_size: int) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return draw_lora(DECODER, vocab_size)


@pytest.fixture
def resampler() -> dict[str, Tensor]:
    torch.manual_seed(2)
    return draw_resampler(HIDDEN)


@pytest.fixture
def released(tmp_path: Path, adapter: dict[str, Tensor], resampler: dict[str, Tensor]) -> Path:
    return write_released(tmp_path / "released", adapter, resampler)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name])
        for name in expected
    )


@torch.no_grad()
def test_an_imported_model_computes_what_the_published_code_does(
    base: Path, clip: str, released: Path, adapter: dict[str, Tensor], tmp_path: Path
) -> None:
    done = import_released(base, released, tmp_path / "model", clip=clip)
    assert (done.lora_layers, done.rank, done.is_as_released) == (11, 4, True)
    model = load_model(tmp_path / "model")
    plain = load_model(base)
    x = torch.randn(3, HIDDEN)
    for name, stem in (
        ("lm_head", "lm_head.lm_head_lora"),
        ("model.layers.1.self_attn.k_proj", "model.layers.1.self_attn.k_proj_lora"),
    ):
        expected = (
            plain.decoder.get_submodule(name)(x) + x @ adapter[f"{stem}.A"] @ adapter[f"{stem}.B"]
        )
        assert torch.allclose(model.decoder.get_submodule(name)(x), expected, atol=1e-5)
    assert model.resampler is not None
    theirs = Resampler(ResamplerConfig(8, 2, 64, 12, 3, 32, HIDDEN, 4))
    theirs.load_state_dict(torch.load(released / "image_proj.pth", weights_only=True))
    features = torch.randn(1, 17, 32)
    assert torch.equal(model.resampler(features), theirs(features))
    assert model.settings.base["model"] == str(base)
    assert (model.num_style_tokens, model.settings.clip) == (3, clip)


def test_both_exports_give_back_every_imported_tensor(
    base: Path,
    clip: str,
    released: Path,
    adapter: dict[str, Tensor],
    resampler: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    import_released(base, released, tmp_path / "model", clip=clip)
    export_released(tmp_path / "model", tmp_path / "again")
    assert same(load_file(tmp_path / "again" / "model.safetensors"), adapter)
    stored = torch.load(tmp_path / "again" / "image_proj.pth", weights_only=True)
    assert same(stored, resampler)
    done = export_peft(tmp_path / "model", tmp_path / "peft", base_name="owner/base")
    assert done.rank == 4
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (4, "owner/base")
    import_released(base, tmp_path / "peft", tmp_path / "third", clip=clip)
    for file in ("adapter_model.safetensors", "resampler.safetensors", "stylear.json"):
        assert (tmp_path / "third" / file).read_bytes() == (tmp_path / "model" / file).read_bytes()
    export_released(tmp_path / "third", tmp_path / "fourth")
    for file in ("model.safetensors", "image_proj.pth"):
        assert (tmp_path / "fourth" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_half_precision_weights_stay_as_they_are(
    base: Path,
    clip: str,
    adapter: dict[str, Tensor],
    resampler: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    half = {name: value.bfloat16() for name, value in adapter.items()}
    folder = write_released(
        tmp_path / "half", half, {name: value.bfloat16() for name, value in resampler.items()}
    )
    import_released(base, folder, tmp_path / "model", clip=clip)
    export_released(tmp_path / "model", tmp_path / "again")
    assert same(load_file(tmp_path / "again" / "model.safetensors"), half)


def test_a_lora_scale_is_multiplied_into_the_released_b(
    base: Path, clip: str, released: Path, adapter: dict[str, Tensor], tmp_path: Path
) -> None:
    import_released(base, released, tmp_path / "model", clip=clip)
    path = tmp_path / "model" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 6.0}))
    export_released(tmp_path / "model", tmp_path / "again")
    stored = load_file(tmp_path / "again" / "model.safetensors")
    assert torch.equal(stored["lm_head.lm_head_lora.A"], adapter["lm_head.lm_head_lora.A"])
    assert torch.equal(stored["lm_head.lm_head_lora.B"], adapter["lm_head.lm_head_lora.B"] * 1.5)


def test_missing_and_surplus_tensors_are_listed(
    base: Path,
    clip: str,
    adapter: dict[str, Tensor],
    resampler: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    del adapter["model.layers.0.mlp.down_proj_lora.B"]
    adapter["model.layers.0.mlp.up_proj_lora.A"] = torch.ones(HIDDEN, 4)
    folder = write_released(tmp_path / "bad", adapter, resampler)
    with pytest.raises(WeightsError) as caught:
        import_released(base, folder, tmp_path / "model", clip=clip)
    assert caught.value.message == (
        f"{folder / 'model.safetensors'}: weights of another model: "
        "model.layers.0.mlp.down_proj_lora.B expected 4x32, found nothing; "
        "model.layers.0.mlp.up_proj_lora.A expected nothing, found 32x4"
    )
    resampler["layers.0.0.to_k.weight"] = resampler.pop("layers.1.0.to_out.weight")
    folder = write_released(tmp_path / "worse", adapter, resampler)
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        WeightsError, match=r"model\.safetensors: expected a weights file, found nothing"
    ):
        import_released(base, folder, tmp_path / "model", clip=clip)
    assert not (tmp_path / "model").exists()


def test_the_number_of_heads_is_that_of_the_release_unless_it_is_stated(
    base: Path, clip: str, adapter: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = write_released(tmp_path / "r", adapter, draw_resampler(HIDDEN, heads=2, dim_head=8))
    with pytest.raises(
        WeightsError, match=r"to_q expected 768 rows \(12 heads of 64.*, found 16$"
    ) as caught:
        import_released(base, folder, tmp_path / "model", clip=clip)
    assert caught.value.hint is not None
    assert "--heads N" in caught.value.hint
    with pytest.raises(WeightsError, match=r"to_q expected a multiple of 3 rows, .*found 16$"):
        import_released(base, folder, tmp_path / "model", clip=clip, heads=3)
    done = import_released(base, folder, tmp_path / "model", clip=clip, heads=2)
    assert (done.resampler.heads, done.resampler.dim_head, done.is_as_released) == (2, 8, False)


def test_weights_of_another_base_are_refused(
    base: Path,
    clip: str,
    released: Path,
    adapter: dict[str, Tensor],
    resampler: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    wide = {name: value for name, value in adapter.items() if "layers" not in name}
    wide["lm_head.lm_head_lora.A"] = torch.ones(HIDDEN + 1, 4)
    folder = write_released(tmp_path / "other", {**adapter, **wide}, resampler)
    with pytest.raises(WeightsError, match=r"lm_head_lora\.A expected 32x4, found 33x4") as caught:
        import_released(base, folder, tmp_path / "model", clip=clip)
    assert caught.value.hint == "the released weights belong to another base model"
    folder = write_released(tmp_path / "narrow", adapter, draw_resampler(HIDDEN - 2))
    with pytest.raises(WeightsError, match="as wide as the base model, 32, found 30"):
        import_released(base, folder, tmp_path / "model", clip=clip)
    import_released(base, released, tmp_path / "model", clip=clip)
    with pytest.raises(WeightsError, match="expected a full base model, found a LoRA adapter"):
        import_released(tmp_path / "model", released, tmp_path / "twice", clip=clip)


def test_a_style_encoder_of_another_width_is_named(
    base: Path, clip: str, adapter: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = write_released(tmp_path / "r", adapter, draw_resampler(HIDDEN, features=40))
    import_released(base, folder, tmp_path / "model", clip=clip)
    with pytest.raises(WeightsError, match=r"tiny-clip: expected features of width 40, found 32"):
        load_model(tmp_path / "model")


def test_a_checkpoint_that_holds_code_is_refused(
    base: Path, clip: str, released: Path, tmp_path: Path
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"latents": torch.ones(1, 3, 8), "x": Evil()}, released / "image_proj.pth")
    with pytest.raises(WeightsError, match=r"image_proj\.pth: cannot be read"):
        import_released(base, released, tmp_path / "model", clip=clip)
    assert not (tmp_path / "owned").exists()


def test_only_the_released_layers_can_be_exported_as_released(
    base: Path, clip: str, released: Path, tmp_path: Path
) -> None:
    import_released(base, released, tmp_path / "model", clip=clip)
    model = load_model(tmp_path / "model")
    lora.merge_lora(model.decoder)
    lora.apply_lora(model.decoder, 2, targets=("q_proj", "up_proj"))
    lora.write_peft(model.decoder, tmp_path / "model", None)
    with pytest.raises(
        WeightsError, match=r"lm_head expected, found nothing; .* \(and 3 more\)"
    ) as caught:
        export_released(tmp_path / "model", tmp_path / "again")
    assert caught.value.hint == "export it as a PEFT adapter: --format peft"
    assert export_peft(tmp_path / "model", tmp_path / "again").lora_layers == 4
    with pytest.raises(WeightsError, match="expected a model with LoRA"):
        export_released(base, tmp_path / "none")


def test_the_commands_import_and_export(
    base: Path, clip: str, released: Path, tmp_path: Path
) -> None:
    model, out = tmp_path / "model", tmp_path / "again"
    run = CliRunner().invoke
    words = ["import", "--base", str(base), "--released", str(released), "--out", str(model)]
    result = run(app, [*words, "--clip", clip, "--json"])
    assert json.loads(result.stdout) == {
        "out": str(model),
        "lora_layers": 11,
        "rank": 4,
        "resampler_layers": 2,
        "heads": "12 of 64",
        "style_tokens": 3,
    }
    words = ["export", "--model", str(model), "--out", str(out), "--format"]
    assert run(app, [*words, "released"]).exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["image_proj.pth", "model.safetensors"]
    assert "expected an empty directory" in str(run(app, [*words, "peft"]).exception)
