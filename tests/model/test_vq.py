"""The VQ model is Chameleon's: same codes as transformers, Meta's key names, straight-through."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import ChameleonVQVAE, ChameleonVQVAEConfig

from stylear.errors import WeightsError
from stylear.model import vq as vq_module
from stylear.model.vq import VQConfig, VQModel

TINY = VQConfig(
    embed_dim=8,
    num_embeddings=16,
    z_channels=8,
    resolution=32,
    base_channels=8,
    channel_multiplier=(1, 2),
    num_res_blocks=1,
    norm_groups=4,
    patch=2,
)


def theirs(**changes: object) -> ChameleonVQVAE:
    torch.manual_seed(0)
    settings = {
        "embed_dim": 16,
        "num_embeddings": 64,
        "latent_channels": 16,
        "resolution": 32,
        "base_channels": 32,
        "channel_multiplier": [1, 2],
        "num_res_blocks": 1,
    }
    model = ChameleonVQVAE(ChameleonVQVAEConfig(**(settings | changes))).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("changes", [{}, {"attn_resolutions": [16]}, {"attn_type": "none"}])
def test_codes_equal_those_of_transformers(changes: dict[str, object]) -> None:
    reference = theirs(**changes)
    model = VQModel(VQConfig.from_dict(reference.config.to_dict())).eval()
    result = model.load_state_dict(reference.state_dict(), strict=False)
    assert result.unexpected_keys == []
    assert {key.split(".")[0] for key in result.missing_keys} == {"decoder"}
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = reference.encode(pixels, return_dict=True)
        latents = model.latents(pixels)
        hidden = reference.quant_conv(expected.last_hidden_state)
    assert torch.allclose(latents, hidden, atol=1e-5)
    codes = model.encode(pixels)
    assert codes.shape == (2, 16, 16)
    assert torch.equal(codes.flatten(), expected.image_tokens.flatten())
    assert codes.unique().numel() > 2


def test_key_names_are_meta_s() -> None:
    with torch.device("meta"):
        names = VQModel(VQConfig()).state_dict()
    for name, shape in {
        "encoder.conv_in.weight": (128, 3, 3, 3),
        "encoder.down.2.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "encoder.down.0.downsample.conv.weight": (128, 128, 3, 3),
        "encoder.mid.attn_1.proj_out.bias": (512,),
        "decoder.conv_in.weight": (512, 256, 3, 3),
        "decoder.up.4.block.2.conv2.weight": (512, 512, 3, 3),
        "decoder.up.3.block.0.nin_shortcut.weight": (256, 512, 1, 1),
        "decoder.up.1.upsample.conv.weight": (128, 128, 3, 3),
        "decoder.conv_out.weight": (3, 128, 3, 3),
        "quantize.embedding.weight": (8192, 256),
        "post_quant_conv.weight": (256, 256, 1, 1),
    }.items():
        assert tuple(names[name].shape) == shape
    assert "decoder.up.0.upsample.conv.weight" not in names
    assert "encoder.down.4.downsample.conv.weight" not in names


def test_patch_divides_the_grid_and_decode_restores_the_size() -> None:
    model = VQModel(TINY).eval()
    pixels = torch.rand(2, 3, 32, 24) * 2 - 1
    codes = model.encode(pixels)
    assert codes.shape == (2, 8, 6)
    assert model.decode(codes).shape == pixels.shape
    assert torch.equal(model.encode(pixels[:1]), codes[:1])
    with pytest.raises(ValueError, match="divide by 4"):
        model.encode(torch.zeros(1, 3, 30, 32))


def test_gradient_passes_straight_through_the_codes() -> None:
    torch.manual_seed(0)
    model = VQModel(TINY)
    pixels = torch.rand(2, 3, 32, 32)
    out = model(pixels)
    assert torch.equal(out.codes, model.encode(pixels))
    assert torch.allclose(out.reconstruction, model.decode(out.codes), atol=1e-5)
    out.reconstruction.sum().backward()
    gradient = model.encoder.conv_in.weight.grad
    assert gradient is not None
    assert float(gradient.abs().sum()) > 0
    assert model.quantize.embedding.weight.grad is None


def test_quantization_loss_by_hand() -> None:
    model = VQModel(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.quant_conv.bias.fill_(3.0)
        model.quantize.embedding.weight.fill_(100.0)
        model.quantize.embedding.weight[5] = 1.0
    out = model(torch.zeros(1, 3, 32, 32))
    assert set(out.codes.flatten().tolist()) == {5}
    assert out.loss.item() == pytest.approx((3 - 1) ** 2 * 1.25)


def test_code_search_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = VQModel(TINY)
    latents = torch.randn(50, TINY.embed_dim)
    whole = model.quantize.nearest(latents)
    monkeypatch.setattr(vq_module, "MAX_DISTANCES", 7 * TINY.num_embeddings)
    assert torch.equal(model.quantize.nearest(latents), whole)
    assert torch.equal(whole, torch.cdist(latents, model.quantize.embedding.weight).argmin(1))


def test_saved_model_is_read_back_and_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    model = VQModel(TINY).eval().half().float()
    model.save_pretrained(tmp_path / "a")
    model.save_pretrained(tmp_path / "b")
    again = VQModel.from_pretrained(tmp_path / "a")
    assert again.config == TINY
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    names = ["config.json", "vqgan.safetensors"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == names
    assert all(
        (tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names
    )


def test_meta_checkpoint_with_its_loss_weights_is_read(tmp_path: Path) -> None:
    model = VQModel(TINY).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "vqgan.safetensors").unlink()
    state = dict(model.state_dict()) | {"loss.discriminator.main.0.weight": torch.zeros(3)}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "vqgan.ckpt")
    again = VQModel.from_pretrained(tmp_path)
    assert torch.equal(again.decoder.conv_out.weight, model.decoder.conv_out.weight)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channel_multiplier": "x"}, "channel_multiplier expected a list of positive integers"),
        ({"attn_resolutions": [0]}, r"attn_resolutions expected a list .*, found \[0\]"),
        ({"embed_dim": True}, "embed_dim expected a positive integer, found True"),
        ({"dropout": "a"}, "dropout expected a number, found 'a'"),
        ({"attn_type": 3}, "attn_type expected text, found 3"),
        ({"double_latent": True}, "double_latent expected False, found True"),
    ],
)
def test_settings_of_another_type_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        VQConfig.from_dict(settings)


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    VQModel(TINY).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"num_embeddings": 16', '"num_embeddings": 32'))
    with pytest.raises(
        WeightsError, match=r"quantize\.embedding\.weight expected 32x8, found 16x8"
    ):
        VQModel.from_pretrained(tmp_path)
    (tmp_path / "vqgan.safetensors").write_bytes(b"cut off")
    with pytest.raises(WeightsError, match=r"vqgan\.safetensors: expected weights"):
        VQModel.from_pretrained(tmp_path)
    (tmp_path / "vqgan.safetensors").unlink()
    with pytest.raises(WeightsError, match="found neither"):
        VQModel.from_pretrained(tmp_path)
