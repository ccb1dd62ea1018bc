"""A prompt beyond the model's context is drawn, and said: on stderr, in the record, in the result."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.tiny_model import write_tiny_model
from PIL import Image

from stylear.errors import UsageError
from stylear.evaluation.evaluate import evaluate
from stylear.model.open import load_model
from stylear.model.style_model import StyleModel
from stylear.sampling.context import compute_grid, describe_long_prompts, measure_prompt
from stylear.sampling.gallery import write_gallery
from stylear.sampling.generate import Sampling, generate
from stylear.sampling.references import Reference

SHORT, LONG = "cat", "a red apple and the dog in a blue house"
PICTURE_TOKENS = 3 + 4 * 5 - 2  # sizes and start, rows of 4 codes and a newline, less the last two
SAMPLING = Sampling(guidance=1.0, top_k=8, temperature=1.0, noise=0.0)


@pytest.fixture
def model(tmp_path: Path) -> StyleModel:
    """A model whose context holds a picture and the short prompt with its style tokens, not the long one."""
    tiny = write_tiny_model(tmp_path / "tiny")
    limit = len(tiny.encode_prompt(SHORT)) + PICTURE_TOKENS
    tiny.decoder.config = dataclasses.replace(tiny.decoder.config, max_position_embeddings=limit)
    return tiny


def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_the_length_of_a_prompt_is_what_the_decoder_is_given(
    model: StyleModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots: list[int] = []
    forward = type(model.decoder).forward

    def counted(self: Any, embeds: Any, *args: Any, **more: Any) -> Any:
        slots.append(embeds.shape[1])
        return forward(self, embeds, *args, **more)

    monkeypatch.setattr(type(model.decoder), "forward", counted)
    generate(model, [SHORT], [picture()], seeds=[0], guidance=1.0)
    length = measure_prompt(model, SHORT, is_styled=True)
    assert (
        sum(slots) == length.tokens + PICTURE_TOKENS == model.decoder.config.max_position_embeddings
    )
    assert length.tokens_beyond_context == 0
    assert measure_prompt(model, LONG, is_styled=True).tokens_beyond_context == 36
    assert compute_grid(model, 32) == (4, 4)


def test_a_size_without_a_token_is_named_with_the_nearest_ones(model: StyleModel) -> None:
    with pytest.raises(UsageError, match=r"found 64 pixels \(<reserved08804>\)") as caught:
        compute_grid(model, 64)
    assert caught.value.hint == "the nearest it has: 32 pixels"
    with pytest.raises(UsageError, match="expected a multiple of 16 pixels, found 40"):
        compute_grid(model, 40)


def test_the_longest_prompt_stands_in_the_warning(model: StyleModel) -> None:
    lengths = [measure_prompt(model, text, is_styled=True) for text in (SHORT, LONG)]
    warning = describe_long_prompts(lengths, "tiny")
    assert warning is not None
    assert warning.startswith("1 of 2 prompts are longer than the context of tiny, which holds")
    assert f"{LONG!r} has {lengths[1].tokens}" in warning
    assert describe_long_prompts(lengths[:1], "tiny") is None


def test_generate_says_it_once_and_draws_all_the_same(
    model: StyleModel, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = generate(model, [LONG] * 3, seeds=[0, 1, 2], batch_size=1, guidance=1.0)
    assert len(pictures) == 3
    assert capsys.readouterr().err.count("warning: 1 of 1 prompts are longer") == 1
    generate(model, [SHORT], seeds=[0], guidance=1.0)
    assert capsys.readouterr().err == ""


def test_the_gallery_records_it_with_each_picture(model: StyleModel, tmp_path: Path) -> None:
    warnings: list[str] = []
    style = Reference("one", picture(), "one")
    lines = write_gallery(
        model, [style], [SHORT, LONG], [0], tmp_path / "out", SAMPLING, on_warning=warnings.append
    )
    assert [line["tokens_beyond_context"] for line in lines] == [0, 36]
    assert lines[1]["prompt_tokens"] - lines[0]["prompt_tokens"] == 36
    record = (tmp_path / "out" / "generations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in record] == lines
    assert [warning[:14] for warning in warnings] == ["1 of 2 prompts"]


def test_the_evaluation_records_it_and_what_clip_reads_of_it(
    model: StyleModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model.clip is not None
    longer = " ".join([LONG] * 2)  # more than the 12 tokens of the tiny CLIP
    reference = Reference("one", picture(), "one")
    evaluation = evaluate([model], [reference], [SHORT, longer], [0], clip=model.clip, guidance=1.0)
    assert [sample.tokens_beyond_context > 0 for sample in evaluation.samples] == [False, True]
    warnings = evaluation.summary()["warnings"]
    assert len(warnings) == 2
    assert "1 of 2 prompts are longer than the 12 tokens that" in warnings[0]
    assert "longer than the context of tiny" in warnings[1]
    assert capsys.readouterr().err == "".join(f"warning: {warning}\n" for warning in warnings)
    evaluation.write(tmp_path / "out")
    lines = (tmp_path / "out" / "samples.jsonl").read_text().splitlines()
    assert json.loads(lines[1])["tokens_beyond_context"] > 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["warnings"] == warnings


def test_a_model_within_its_context_is_drawn_without_a_word(
    model: StyleModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model.source is not None
    whole = load_model(model.source)
    write_gallery(whole, [], [LONG], [0], tmp_path / "out", SAMPLING)
    assert capsys.readouterr().err == ""
