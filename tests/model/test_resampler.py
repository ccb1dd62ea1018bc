"""The resampler is StyleAR's: released key names and shapes, and its formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stylear.errors import WeightsError
from stylear.model.resampler import Resampler, ResamplerConfig

TINY = ResamplerConfig(
    dim=16, depth=2, dim_head=8, heads=3, num_queries=4, embedding_dim=12, output_dim=20, ff_mult=2
)


def test_released_names_and_sizes() -> None:
    with torch.device("meta"):
        model = Resampler(ResamplerConfig())
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    expected = {
        "latents": (1, 16, 4096),
        "proj_in.weight": (4096, 1280),
        "proj_in.bias": (4096,),
        "proj_out.weight": (4096, 4096),
        "proj_out.bias": (4096,),
        "norm_out.weight": (4096,),
        "norm_out.bias": (4096,),
    }
    for i in range(4):
        attention, feed = f"layers.{i}.0.", f"layers.{i}.1."
        for norm in (f"{attention}norm1", f"{attention}norm2", f"{feed}0"):
            expected |= {f"{norm}.weight": (4096,), f"{norm}.bias": (4096,)}
        expected |= {
            f"{attention}to_q.weight": (768, 4096),
            f"{attention}to_kv.weight": (1536, 4096),
            f"{attention}to_out.weight": (4096, 768),
            f"{feed}1.weight": (16384, 4096),
            f"{feed}3.weight": (4096, 16384),
        }
    assert shapes == expected
    assert round(model.num_parameters / 1e6) == 609  # million, as published


def by_hand(model: Resampler, features: Tensor) -> Tensor:
    """The released formula, one image and one head at a time."""
    state, f = model.state_dict(), torch.nn.functional
    x = features @ state["proj_in.weight"].T + state["proj_in.bias"]
    latents = state["latents"][0]
    for i in range(TINY.depth):
        w = {k.removeprefix(f"layers.{i}."): v for k, v in state.items() if f"layers.{i}." in k}
        a = f.layer_norm(x, (16,), w["0.norm1.weight"], w["0.norm1.bias"])
        b = f.layer_norm(latents, (16,), w["0.norm2.weight"], w["0.norm2.bias"])
        q = b @ w["0.to_q.weight"].T
        k, v = (torch.cat([a, b]) @ w["0.to_kv.weight"].T).split(24, dim=1)
        heads = []
        for h in range(3):
            part = slice(8 * h, 8 * h + 8)
            heads.append((q[:, part] @ k[:, part].T / 8**0.5).softmax(-1) @ v[:, part])
        latents = latents + torch.cat(heads, 1) @ w["0.to_out.weight"].T
        c = f.layer_norm(latents, (16,), w["1.0.weight"], w["1.0.bias"])
        latents = latents + f.gelu(c @ w["1.1.weight"].T) @ w["1.3.weight"].T
    out = latents @ state["proj_out.weight"].T + state["proj_out.bias"]
    return f.layer_norm(out, (20,), state["norm_out.weight"], state["norm_out.bias"])


@torch.no_grad()
def test_output_follows_the_released_formula() -> None:
    model = Resampler(TINY)
    features = torch.randn(2, 5, 12)
    out = model(features)
    assert out.shape == (2, 4, 20)
    assert torch.allclose(out[1], by_hand(model, features[1]), atol=1e-5)
    assert torch.allclose(model(features[:1]), out[:1], atol=1e-6)


def test_sizes_are_read_from_stored_weights() -> None:
    state = Resampler(TINY).state_dict()
    assert ResamplerConfig.infer(state, dim_head=8) == TINY
    del state["proj_in.weight"]
    with pytest.raises(WeightsError, match=r"here: resampler: proj_in\.weight expected"):
        ResamplerConfig.infer(state, what="here")
    with pytest.raises(WeightsError, match="unknown setting 'width'"):
        ResamplerConfig.from_dict({"width": 3})


def test_seed_alone_decides_fresh_weights() -> None:
    one, two, three = Resampler(TINY), Resampler(TINY), Resampler(TINY)
    for model, seed in ((one, 1), (two, 1), (three, 2)):
        model.init_weights(seed)
    assert torch.equal(one.latents, two.latents)
    assert not torch.equal(one.latents, three.latents)
