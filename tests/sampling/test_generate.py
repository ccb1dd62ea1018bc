"""Sampling equals the model run by hand, and a batch changes no picture in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.tiny_model import write_tiny_base, write_tiny_model
from PIL import Image

from stylear.errors import UsageError
from stylear.model.style_model import StyleModel
from stylear.model.style_tokens import insert_style_tokens, remove_subject
from stylear.sampling.decode import sample_code
from stylear.sampling.generate import generate, sample_codes
from stylear.sampling.styles import encode_styles

PROMPTS = ["a red apple", "the dog in a blue house", "cat", "an apple tree in the style of a boat"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StyleModel:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def reference(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def same(a: Image.Image, b: Image.Image) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


def draws(batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(batch, 4, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("guidance", "style_guidance"),
    [(1.0, None), (4.0, None), (4.0, 1.0), (4.0, 2.0), (1.0, 3.0), (4.0, 0.0)],
)
def test_codes_equal_a_full_forward_for_every_token(
    model: StyleModel, guidance: float, style_guidance: float | None
) -> None:
    """Static cache, padding, batching and the joint newline against the plain definition."""
    styles = encode_styles(model, [reference(1), reference(2), None, reference(1)], [None] * 4)
    ids = [
        model.encode_prompt(p, style=s is not None) for p, s in zip(PROMPTS, styles, strict=True)
    ]
    numbers = draws(4)
    settings: dict[str, Any] = {"guidance": guidance, "top_k": 40, "temperature": 0.9}
    settings["style_guidance"] = style_guidance
    empty = [model.encode_prompt("", style=s is not None) for s in styles]
    codes = sample_codes(model.decoder, model.layout, ids, styles, numbers, empty, **settings)
    assert codes.shape == (4, 4, 4)
    for row in range(4):
        by_hand = slow_codes(model, ids[row], styles[row], numbers[row], **settings)
        assert torch.equal(codes[row], by_hand)
    assert len(torch.unique(codes)) > 5


@torch.no_grad()
def slow_codes(
    model: StyleModel,
    ids: list[int],
    style: torch.Tensor | None,
    numbers: torch.Tensor,
    *,
    guidance: float,
    style_guidance: float | None,
    top_k: int,
    temperature: float,
) -> torch.Tensor:
    """One picture, no cache, no batch: three full forwards a code."""
    layout, decoder = model.layout, model.decoder

    def logits(prompt: list[int], tail: list[int], tokens: torch.Tensor | None) -> torch.Tensor:
        sequence = torch.tensor([[*prompt, *tail]])
        embeds = decoder.embed(sequence)
        if tokens is not None:
            rows, columns = (sequence == layout.style_placeholder).nonzero(as_tuple=True)
            embeds = insert_style_tokens(embeds, tokens[None], rows, columns)
        hidden = decoder(embeds)[0, -1]
        full = decoder.lm_head(hidden)
        return full[torch.tensor(layout.image_token_ids)]

    alone = model.encode_prompt("", style=True)
    tail = [layout.image_start, layout.size_token(2), layout.size_token(2)]
    codes = torch.zeros(4, 4, dtype=torch.long)
    for y in range(4):
        for x in range(4):
            with_prompt = logits(ids, tail, style)
            without = logits([], tail, None)
            styled = without if style is None else logits(alone, tail, style)
            split = guidance if style_guidance is None else style_guidance
            guided = without + split * (styled - without) + guidance * (with_prompt - styled)
            guided[guided < guided.topk(top_k).values[-1]] = float("-inf")
            probabilities = (guided.double() / temperature).softmax(-1)
            codes[y, x] = int((probabilities.cumsum(-1) <= numbers[y, x]).sum())
            tail.append(layout.image_token_ids[int(codes[y, x])])
        tail.append(layout.newline)
    return codes


def test_a_batch_changes_no_picture(model: StyleModel) -> None:
    references = [reference(1), reference(2), None, reference(1)]
    seeds = [3, 4, 5, 3]
    mask = np.zeros((32, 32), dtype=bool)
    mask[8:24, 8:24] = True
    masks = [None, mask, None, None]
    together = generate(model, PROMPTS, references, seeds=seeds, masks=masks)
    split = generate(model, PROMPTS, references, seeds=seeds, masks=masks, batch_size=3)
    for i in range(4):
        alone = generate(model, [PROMPTS[i]], [references[i]], seeds=[seeds[i]], masks=[masks[i]])
        assert same(alone[0], together[i])
        assert same(split[i], together[i])
    assert together[0].size == (32, 32)
    assert not same(together[0], together[3])


def test_seed_reference_and_mask_each_change_the_picture(model: StyleModel) -> None:
    mask = np.zeros((32, 32), dtype=bool)
    mask[:16] = True
    pictures = generate(
        model,
        ["cat"] * 5,
        [reference(1), reference(1), reference(2), None, reference(1)],
        seeds=[0, 1, 0, 0, 0],
        masks=[None, None, None, None, mask],
    )
    arrays = {np.asarray(picture).tobytes() for picture in pictures}
    assert len(arrays) == 5


def test_a_mask_takes_the_subject_out_by_the_formula(model: StyleModel) -> None:
    picture = reference(1)
    mask = np.zeros((32, 32), dtype=bool)
    mask[8:24, 8:24] = True
    white = np.asarray(picture).copy()
    white[~mask] = 255
    whole = model.style_features([picture])
    subject = model.style_features([Image.fromarray(white)])
    resampler = model.resampler
    assert resampler is not None
    with torch.no_grad():
        expected = 0.2 * resampler(whole) + 0.8 * resampler(whole - 0.8 * subject)
        also = remove_subject(whole, subject, resampler)
    (tokens,) = encode_styles(model, [picture], [mask])
    assert tokens is not None
    torch.testing.assert_close(tokens, expected[0])
    torch.testing.assert_close(tokens, also[0])


def test_pick_inverts_the_distribution() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.0, 0.3, 0.2]])).expand(5, 4)
    uniform = torch.tensor([0.0, 0.49, 0.51, 0.79, 0.999999], dtype=torch.float64)
    assert sample_code(logits, uniform, 10, 1.0).tolist() == [0, 0, 2, 2, 3]
    assert sample_code(logits, uniform, 2, 1.0).tolist() == [0, 0, 0, 2, 2]
    assert sample_code(logits, uniform, 1, 1.0).tolist() == [0] * 5
    assert sample_code(logits, uniform, 10, 0.0).tolist() == [0] * 5


def test_more_noise_changes_the_style_tokens_and_not_the_draws(model: StyleModel) -> None:
    still = generate(model, ["cat"], [reference(1)], seeds=[7], noise=0.0)
    assert same(still[0], generate(model, ["cat"], [reference(1)], seeds=[7], noise=0.0)[0])
    plain = generate(model, ["cat"], [None], seeds=[7], noise=0.0)
    assert same(plain[0], generate(model, ["cat"], [None], seeds=[7], noise=0.9)[0])


def test_settings_out_of_range_are_named(model: StyleModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="top_k: expected at least 1, found 0"):
        generate(model, ["cat"], seeds=[0], top_k=0)
    with pytest.raises(UsageError, match="noise: expected at least 0, found nan"):
        generate(model, ["cat"], seeds=[0], noise=float("nan"))
    with pytest.raises(UsageError, match="seeds: expected one for each of 2 prompts, found 1"):
        generate(model, ["cat", "dog"], seeds=[0])
    with pytest.raises(UsageError, match="size: expected a multiple of 16 pixels, found 20"):
        generate(model, ["cat"], seeds=[0], size_px=20)
    base = write_tiny_base(tmp_path / "base")
    with pytest.raises(UsageError, match="base: expected a model with style tokens"):
        generate(base, ["cat"], [reference(1)], seeds=[0])
    assert generate(base, ["cat"], seeds=[0])[0].size == (32, 32)


def test_progress_counts_pictures(model: StyleModel) -> None:
    counts: list[int] = []
    generate(model, PROMPTS, seeds=[0] * 4, batch_size=3, on_batch=counts.append)
    assert counts == [3, 1]
