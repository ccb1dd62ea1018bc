"""Batches packed by arrays equal those put together example by example."""

from __future__ import annotations

from pathlib import Path

import torch
from builders.tiny_model import write_tiny_model

from stylear.model.layout import collate
from stylear.model.packing import pack_batch


def test_packed_rows_equal_collated_examples(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    codes = torch.randint(64, (4, 4, 4), generator=torch.Generator().manual_seed(0))
    layout, template = model.layout, model.settings.prompt_template
    captions = ["a red apple", "a house", "a blue boat on a lake"]
    examples = [
        layout.example(caption, one, 3, template)
        for caption, one in zip(captions, codes, strict=False)
    ]
    expected = collate([*examples, layout.unconditional(codes[3])], layout.pad)
    prompts = [layout.encode_prompt(caption, 3, template) for caption in captions]
    batch = pack_batch(layout, [*prompts, []], codes)
    for name, value in vars(expected).items():
        assert torch.equal(getattr(batch, name), value), name


def test_rows_without_any_prompt_are_packed(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    codes = torch.zeros(2, 4, 4, dtype=torch.long)
    batch = pack_batch(model.layout, [[], []], codes)
    assert batch.ids[0].tolist() == model.layout.image_span(codes[0])
    assert batch.styled.tolist() == [False, False]
    assert batch.lengths.tolist() == [24, 24]
