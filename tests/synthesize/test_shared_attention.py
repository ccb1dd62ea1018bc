"""Shared attention and inversion, by hand and against plain diffusers, on a tiny random SDXL."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.tiny_sdxl import write_sdxl
from diffusers import StableDiffusionXLPipeline
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from stylear.curate.synthesize.diffusers.inversion import (
    encode_image,
    invert_latents,
    make_ddim_scheduler,
)
from stylear.curate.synthesize.diffusers.shared_attention import (
    SharedAttention,
    SharedGroupNorm,
    adain,
    share_attention,
)

SIZE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture
def pipeline(folder: Path) -> Any:
    sdxl = StableDiffusionXLPipeline.from_pretrained(folder / "sdxl", add_watermarker=False)
    sdxl.scheduler = make_ddim_scheduler(sdxl)
    sdxl.set_progress_bar_config(disable=True)
    return sdxl


@pytest.fixture
def attention() -> Attention:
    torch.manual_seed(0)
    return Attention(query_dim=12, heads=3, dim_head=4, processor=AttnProcessor2_0()).eval()


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(attn: Attention, own: Tensor, reference: Tensor, scale: float, shift: float) -> Tensor:
    """Equations of the paper's section 4 for one image (T, C), head by head."""

    def normed(x: Tensor, like: Tensor) -> Tensor:
        deviation = (x.var(0) + 1e-5).sqrt()
        return (x - x.mean(0)) / deviation * (like.var(0) + 1e-5).sqrt() + like.mean(0)

    heads = []
    for head in range(attn.heads):
        columns = slice(4 * head, 4 * head + 4)
        q, k, v = (p(own)[:, columns] for p in (attn.to_q, attn.to_k, attn.to_v))
        qr, kr, vr = (p(reference)[:, columns] for p in (attn.to_q, attn.to_k, attn.to_v))
        q, k = normed(q, qr), normed(k, kr)
        logits = torch.cat([q @ k.T, q @ (scale * kr).T], 1) / math.sqrt(4)
        logits[:, len(own) :] += shift
        heads.append(logits.softmax(1) @ torch.cat([v, vr]))
    return attn.to_out[0](torch.cat(heads, 1))


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.5, 0.0), (1.0, math.log(2))])
def test_an_image_attends_to_itself_and_the_reference_of_its_half(
    attention: Attention, scale: float, shift: float
) -> None:
    tokens = noise(2 * 3, 5, 12)
    with torch.inference_mode():
        attended = SharedAttention(2, scale, shift)(attention, tokens)
        for half in (0, 1):
            for place in (1, 2):
                own, reference = tokens[3 * half + place], tokens[3 * half]
                expected = by_hand(attention, own, reference, scale, shift)
                assert torch.allclose(attended[3 * half + place], expected, atol=1e-6)
            alone = AttnProcessor2_0()(attention, tokens[3 * half : 3 * half + 1])
            assert torch.allclose(attended[3 * half], alone[0], atol=1e-6)


def test_the_reference_and_neighbours_do_not_see_an_image(attention: Attention) -> None:
    tokens = noise(2 * 3, 5, 12)
    others = tokens.clone()
    others[2], others[5] = noise(5, 12, seed=2), noise(5, 12, seed=3)  # the last image of a half
    with torch.inference_mode():
        attended, changed = (SharedAttention(2)(attention, t) for t in (tokens, others))
    assert [bool((attended[i] == changed[i]).all()) for i in range(6)] == [True, True, False] * 2


def test_a_batch_without_followers_is_plain_attention(attention: Attention) -> None:
    tokens = noise(2, 5, 12)
    with torch.inference_mode():
        assert torch.equal(
            SharedAttention(2)(attention, tokens), AttnProcessor2_0()(attention, tokens)
        )


def test_adain_gives_the_references_mean_and_deviation() -> None:
    features, reference = 3 * noise(2, 7, 4) + 1, noise(2, 7, 4, seed=2) - 5
    aligned = adain(features, reference)
    assert torch.allclose(aligned.mean(-2), reference.mean(-2), atol=1e-5)
    assert torch.allclose(aligned.std(-2), reference.std(-2), atol=1e-4)
    assert torch.allclose(adain(reference, reference), reference, atol=1e-5)


def test_group_norm_takes_statistics_of_image_and_reference_together() -> None:
    norm = nn.GroupNorm(2, 4)
    features = noise(3, 4, 2, 3)
    normed = SharedGroupNorm(norm, 1)(features)
    groups = torch.cat([features[1], features[0]], 1).view(2, 2, 4, 3)  # stacked along the height
    mean = groups.mean((1, 2, 3), keepdim=True)
    deviation = (groups.var((1, 2, 3), keepdim=True, correction=0) + norm.eps).sqrt()
    expected = ((groups - mean) / deviation).view(4, 4, 3)[:, :2]
    assert torch.allclose(normed[1], expected, atol=1e-5)
    assert torch.allclose(normed[0], norm(features[:1])[0], atol=1e-6)
    assert torch.equal(SharedGroupNorm(norm, 3)(features), norm(features))


def test_layers_are_shared_evenly_and_none_means_the_plain_unet(pipeline: Any) -> None:
    before = {name: type(part) for name, part in pipeline.unet.attn_processors.items()}
    own = [name for name in before if name.endswith("attn1.processor")]
    assert share_attention(pipeline.unet, 2, layers=0.0, group_norm=True) == 0
    assert {name: type(part) for name, part in pipeline.unet.attn_processors.items()} == before
    assert not any(isinstance(part, SharedGroupNorm) for part in pipeline.unet.modules())
    assert share_attention(pipeline.unet, 2, layers=0.5, group_norm=True) == len(own) // 2
    shared = [
        name
        for name, part in pipeline.unet.attn_processors.items()
        if isinstance(part, SharedAttention)
    ]
    assert shared == own[1::2]
    norms = [part for part in pipeline.unet.modules() if isinstance(part, nn.GroupNorm)]
    wrapped = [part for part in pipeline.unet.modules() if isinstance(part, SharedGroupNorm)]
    assert len(norms) == len(wrapped) > 0
    assert share_attention(pipeline.unet, 2) == len(own)


def draw(pipeline: Any, latents: Tensor, **call: Any) -> Tensor:
    drawn: Tensor = pipeline(
        latents=latents, output_type="latent", height=SIZE, width=SIZE, **call
    ).images
    return drawn


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_one_image_equals_the_plain_pipeline(pipeline: Any, guidance: float) -> None:
    call: dict[str, Any] = {
        "prompt": "a cat",
        "num_inference_steps": 3,
        "guidance_scale": guidance,
    }
    latents = noise(1, 4, 16, 16)
    plain = draw(pipeline, latents, **call)
    share_attention(pipeline.unet, 2 if guidance > 1 else 1, group_norm=True)
    assert torch.equal(draw(pipeline, latents, **call), plain)


def test_followers_change_with_the_reference_and_the_reference_not_with_them(pipeline: Any) -> None:
    share_attention(pipeline.unet, 2, group_norm=True)
    call: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 4.0}
    prompts = ["an owl", "a cat", "a dog"]
    latents = noise(3, 4, 16, 16)
    drawn = draw(pipeline, latents, prompt=prompts, **call)
    other = torch.cat([latents[:1], noise(2, 4, 16, 16, seed=5)])
    moved = draw(pipeline, other, prompt=["an owl", "a bee", "a bus"], **call)
    assert torch.equal(drawn[0], moved[0])
    alone = draw(pipeline, latents[:1], prompt="an owl", **call)
    assert torch.allclose(drawn[:1], alone, atol=1e-4)
    turned = draw(pipeline, torch.cat([-latents[:1], latents[1:]]), prompt=prompts, **call)
    assert (drawn[1:] - turned[1:]).abs().amax((1, 2, 3)).min() > 0.01


def test_an_image_becomes_the_mean_of_its_latents(pipeline: Any) -> None:
    pixels = np.random.default_rng(0).random((SIZE, SIZE, 3), np.float32)
    latents = encode_image(pipeline, pixels)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] * 2 - 1
    expected = pipeline.vae.encode(image).latent_dist.mean * pipeline.vae.config.scaling_factor
    assert torch.equal(latents, expected)
    assert latents.shape == (1, 4, 16, 16)


def lost(pipeline: Any, weight: float, steps: int) -> float:
    """What inversion and sampling lose of latents, relative, when the UNet answers this weakly."""
    latents = 0.5 * noise(1, 4, 16, 16)
    call: dict[str, Any] = {"prompt": "a cat", "guidance_scale": 1.0}
    with torch.no_grad():
        pipeline.unet.conv_out.weight.mul_(weight)
        pipeline.unet.conv_out.bias.copy_(torch.tensor([1.0, -1.0, 0.5, 0.25]))
    trail = invert_latents(pipeline, latents, steps=steps, height=SIZE, width=SIZE, **call)
    assert trail.shape == (steps + 1, 4, 16, 16)
    assert torch.equal(trail[-1:], latents)
    back = draw(pipeline, trail[:1], num_inference_steps=steps, **call)
    return float((back - latents).norm() / latents.norm())


def test_inversion_is_exact_where_the_noise_does_not_hang_on_the_latents(pipeline: Any) -> None:
    assert lost(pipeline, 0.0, 10) < 1e-5


def test_inversion_then_sampling_gives_the_latents_back(folder: Path) -> None:
    errors = []
    for steps in (5, 20, 80):
        fresh = StableDiffusionXLPipeline.from_pretrained(folder / "sdxl", add_watermarker=False)
        fresh.scheduler = make_ddim_scheduler(fresh)
        fresh.set_progress_bar_config(disable=True)
        errors.append(lost(fresh, 0.05, steps))
    assert errors[0] > errors[1] > errors[2]  # exact in the limit of small steps
    assert errors[2] < 0.01
