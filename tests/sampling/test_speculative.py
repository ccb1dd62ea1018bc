"""Speculation changes how many passes a picture takes, and neither its distribution nor its greedy codes."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from builders.tiny_clip import WORDS
from torch import Tensor

from stylear.model.decoder_config import DecoderConfig
from stylear.model.families.chameleon import ChameleonLayout
from stylear.model.open import open_model
from stylear.model.tokenizer import build_tokenizer
from stylear.model.transformer import Decoder
from stylear.sampling import decode
from stylear.sampling.decode import CodeSampler, compute_probabilities
from stylear.sampling.generate import generate
from stylear.sampling.speculative import SpeculativeSampler

LAYOUT = ChameleonLayout(build_tokenizer(WORDS, 3, size_units=[1, 2, 3], text_vocabulary=64))
PROMPTS = [LAYOUT.encode_prompt(text) for text in ("a red apple", "cat", "the dog")]


def random_decoder() -> Decoder:
    torch.manual_seed(0)
    config = DecoderConfig(
        vocab_size=len(LAYOUT.vocabulary),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    decoder = Decoder(config, LAYOUT.image_token_ids).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return decoder


def draws(pictures: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(pictures, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("guidance", "style_guidance"), [(1.0, None), (4.0, None), (4.0, 2.0)])
@pytest.mark.parametrize("window", [1, 2, 5, 40])
def test_at_temperature_0_the_codes_are_those_of_single_steps(
    window: int, guidance: float, style_guidance: float | None
) -> None:
    decoder, numbers = random_decoder(), draws(3, 4, 6)
    settings: dict[str, Any] = {"guidance": guidance, "top_k": 3, "temperature": 0.0}
    settings["style_guidance"] = style_guidance
    plain = CodeSampler(decoder, LAYOUT, **settings)
    sampler = SpeculativeSampler(decoder, LAYOUT, window=window, **settings)
    expected = plain.draw(PROMPTS, [None] * 3, numbers, PROMPTS)
    assert torch.equal(sampler.draw(PROMPTS, [None] * 3, numbers, PROMPTS), expected)
    assert len(torch.unique(expected)) > 1
    if window == 1:
        assert sampler.passes == 27  # newlines take passes of their own
    else:
        assert sampler.passes <= 24  # a pass decides a code at least


def test_pictures_without_newlines_are_those_of_single_steps() -> None:
    layout = ChameleonLayout(LAYOUT.tokenizer)
    layout.newline = None
    decoder, numbers = random_decoder(), draws(2, 4, 6)
    settings: dict[str, Any] = {"guidance": 4.0, "top_k": 3, "temperature": 0.0}
    expected = CodeSampler(decoder, layout, **settings).draw(PROMPTS[:2], [None] * 2, numbers)
    sampler = SpeculativeSampler(decoder, layout, window=5, **settings)
    assert torch.equal(sampler.draw(PROMPTS[:2], [None] * 2, numbers), expected)
    with_newlines = CodeSampler(decoder, LAYOUT, **settings).draw(PROMPTS[:2], [None] * 2, numbers)
    assert not torch.equal(with_newlines, expected)


def test_a_batch_changes_no_picture_and_static_passes_are_replayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder, numbers = random_decoder(), draws(3, 4, 6)
    settings: dict[str, Any] = {"guidance": 3.0, "top_k": 3, "temperature": 1.0, "window": 4}
    exact = SpeculativeSampler(decoder, LAYOUT, **settings)
    batched = exact.draw(PROMPTS, [None] * 3, numbers)
    for i in range(3):
        alone = exact.draw(PROMPTS[i : i + 1], [None], numbers[i : i + 1])
        assert torch.equal(alone[0], batched[i])

    class Replayed:
        def __init__(self, run: Any, pool: Any, device: Any) -> None:
            self.replay = run

        def pool(self) -> None:
            return None

    monkeypatch.setattr(decode, "capture_graph", Replayed)
    static = SpeculativeSampler(decoder, LAYOUT, **settings, static=True, bucket=16)
    static.captures = True
    assert torch.equal(static.draw(PROMPTS, [None] * 3, numbers), batched)


@torch.no_grad()
def joint_probabilities(decoder: Decoder, guidance: float, top_k: int) -> Tensor:
    """The probability of each of the 81 pictures of 2 x 2 codes, by their single steps."""
    pictures = torch.tensor(list(product(range(3), repeat=4)))
    result = torch.ones(81, dtype=torch.float64)
    logits = []
    for prompt in (PROMPTS[0], []):
        spans = torch.tensor([[*prompt, *LAYOUT.image_span(p.view(2, 2))] for p in pictures])
        offsets = LAYOUT.code_offsets(2, 2) + len(prompt) - 1
        logits.append(decoder.image_logits(decoder(decoder.embed(spans))[:, offsets]))
    guided = logits[1] + guidance * (logits[0] - logits[1])
    p = compute_probabilities(guided, top_k, 1.0)
    return result * p.gather(-1, pictures[..., None])[..., 0].prod(dim=1)


@pytest.mark.parametrize(("window", "top_k"), [(3, 3), (6, 2)])
def test_pictures_have_the_distribution_of_single_steps(window: int, top_k: int) -> None:
    """Pearson's statistic of n cells has mean n - 1 and variance 2 n - 2 if the distribution is the same.

    Accepting every draft that p allows gives 2889 with 81 cells and 1102 with 16.
    """
    decoder, count = random_decoder(), 3000
    expected = joint_probabilities(decoder, 2.0, top_k) * count
    assert float(expected.sum()) == pytest.approx(count)
    settings: dict[str, Any] = {"guidance": 2.0, "top_k": top_k, "temperature": 1.0}
    numbers = draws(count, 2, 2)
    places = torch.tensor([27, 9, 3, 1])
    statistics = []
    for sampler in (
        SpeculativeSampler(decoder, LAYOUT, window=window, **settings),
        CodeSampler(decoder, LAYOUT, **settings),
    ):
        codes = sampler.draw(PROMPTS[:1] * count, [None] * count, numbers).flatten(1)
        counts = torch.bincount((codes * places).sum(dim=1), minlength=81).double()
        assert float(counts[expected == 0].sum()) == 0
        cells = expected > 0
        statistics.append(float(((counts - expected) ** 2 / expected)[cells].sum()))
    freedom = top_k**4 - 1
    assert int((expected > 0).sum()) == freedom + 1
    assert max(statistics) < freedom + 4 * (2 * freedom) ** 0.5


def test_generate_speculates(monkeypatch: pytest.MonkeyPatch) -> None:
    windows: list[int] = []
    draw = SpeculativeSampler.draw

    def counted(self: SpeculativeSampler, *args: Any) -> Tensor:
        windows.append(self.window)
        return draw(self, *args)

    monkeypatch.setattr(SpeculativeSampler, "draw", counted)
    model = open_model("mini-ar", device="cpu")
    plain, speculative = (
        generate(model, ["a red apple"], seeds=[0], temperature=0, speculate=n)[0] for n in (0, 6)
    )
    assert plain.tobytes() == speculative.tobytes()
    assert windows == [6]


def test_a_picture_of_the_mini_model_takes_fewer_passes_than_codes() -> None:
    model = open_model("mini-ar", device="cpu")
    ids = [model.encode_prompt("a red apple", style=False)]
    settings: dict[str, Any] = {"guidance": 4.0, "top_k": 100, "temperature": 1.0}
    sampler = SpeculativeSampler(model.decoder, model.layout, window=8, **settings)
    codes = sampler.draw(ids, [None], draws(1, *model.grid))
    assert codes.shape == (1, *model.grid)
    assert sampler.passes < model.grid[0] * model.grid[1]
