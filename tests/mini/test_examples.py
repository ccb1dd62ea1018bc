"""What the mini models are trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylear.mini import examples as mini_examples
from stylear.mini.drawings import Pictures, augment_copies, drawings, jitter
from stylear.mini.everyday import EVERYDAY
from stylear.mini.examples import FAMILIES, Examples, decoder_pictures, draw_rows, named_style
from stylear.mini.styles import HELD_OUT_FAMILIES
from stylear.mini.train_clip import caption_loss

STYLES = ["", "", "mosaic/1", "mosaic/2", "mosaic/1", "neon/1"]


@pytest.fixture
def examples() -> Examples:
    pixels = np.zeros((6, 64, 64, 3), np.uint8)
    captions = ["a cat", "a dog", "a cat", "a cat", "a dog", "a dog"]
    return Examples.of(Pictures(pixels, captions, STYLES), torch.zeros(6, 4))


def test_a_sibling_has_the_style_of_its_picture(examples: Examples) -> None:
    rows = torch.arange(6).repeat(50)
    siblings = examples.siblings(rows, torch.Generator().manual_seed(0))
    assert torch.equal(examples.style[siblings], examples.style[rows])
    assert set(siblings[rows == 2].tolist()) == {2, 4}
    assert set(siblings[rows == 0].tolist()) == {0, 1}


def test_a_batch_has_its_share_of_raw_pictures() -> None:
    rows = draw_rows(100, 1000, 50, 0.3, torch.Generator().manual_seed(0))
    assert int((rows < 100).sum()) == 15
    assert len(rows) == 50


def test_families_that_are_held_out_have_no_number() -> None:
    assert not set(FAMILIES) & set(HELD_OUT_FAMILIES)
    assert named_style("a red apple", "mosaic") == "a red apple in mosaic style"


def test_every_everyday_thing_is_a_caption_of_the_corpus() -> None:
    assert not EVERYDAY - set(drawings("train").captions)


@pytest.mark.parametrize("everyday", [True, False])
def test_the_decoders_see_everyday_things_more_often_raw_pictures_first(
    monkeypatch: pytest.MonkeyPatch, everyday: bool
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    captions = ["a house" if everyday else "a hut", "a judge"]
    monkeypatch.setattr(
        mini_examples, "drawings", lambda _split: Pictures(pixels, captions, ["", ""])
    )
    monkeypatch.setattr(mini_examples, "EVERYDAY_STYLED_COPIES", 30)
    pictures = decoder_pictures()
    extra = (32, 30) if everyday else (0, 0)
    raw = [
        caption
        for caption, style in zip(pictures.captions, pictures.styles, strict=True)
        if not style
    ]
    assert pictures.styles[: len(raw)] == [""] * len(raw)
    assert (raw.count(captions[0]), raw.count("a judge")) == (8 + extra[0], 8)
    assert pictures.captions[len(raw) :].count(captions[0]) == 20 + extra[1]
    assert len(pictures.pixels) == len(pictures)


def test_moved_copies_begin_with_the_drawings_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    copies = augment_copies(Pictures(pixels, ["a", "b", "c"], [""] * 3), 3, seed=0, shift=4)
    assert np.array_equal(copies.pixels[:3], pixels)
    assert copies.captions == ["a", "b", "c"] * 3
    assert not np.array_equal(copies.pixels[3:6], pixels)


def test_jittered_pictures_are_crops_of_the_padded_pictures() -> None:
    pixels = torch.rand(8, 3, 16, 16)
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2), mode="replicate")
    for before, after in zip(
        padded, jitter(pixels, torch.Generator().manual_seed(0), max_shift=2), strict=True
    ):
        crops = [before[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
        assert any(torch.equal(after, c) or torch.equal(after, c.flip(-1)) for c in crops)


def test_the_caption_loss_shares_the_probability_among_positives() -> None:
    similarities = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    alone = caption_loss(similarities, torch.eye(2, dtype=torch.bool))
    rows = -(similarities.log_softmax(1).diagonal().mean())
    columns = -(similarities.log_softmax(0).diagonal().mean())
    assert alone.item() == pytest.approx(((rows + columns) / 2).item())
    both = caption_loss(torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool))
    assert both.item() == pytest.approx(np.log(2))
