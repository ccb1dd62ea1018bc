"""Packed token rows are the rows that the layout makes one by one."""

from __future__ import annotations

import pytest
import torch

from stylear.mini.packing import TokenPacker
from stylear.model.families.chameleon import ChameleonLayout
from stylear.model.layout import collate
from stylear.model.tokenizer import build_tokenizer

SIDE = 4
PROMPTS = ("a red apple", "a cat", "a very small house in mosaic style")


@pytest.fixture(scope="module")
def layout() -> ChameleonLayout:
    return ChameleonLayout(build_tokenizer(PROMPTS, 16, (SIDE // 2,)))


def codes(count: int) -> torch.Tensor:
    return torch.randint(16, (count, SIDE * SIDE), generator=torch.Generator().manual_seed(0))


def test_packed_rows_equal_the_rows_of_the_layout(layout: ChameleonLayout) -> None:
    packer = TokenPacker(layout, [layout.encode_prompt(text) for text in PROMPTS], SIDE)
    chosen, pictures = torch.tensor([2, 0, 1, 0]), codes(4)
    ids, columns = packer.pack(chosen, pictures, torch.zeros(4, dtype=torch.bool))
    wanted = collate(
        [
            layout.example(PROMPTS[int(i)], picture.view(SIDE, SIDE))
            for i, picture in zip(chosen, pictures, strict=True)
        ],
        layout.pad,
    )
    assert torch.equal(ids[:, : wanted.ids.shape[1]], wanted.ids)
    assert (ids[:, wanted.ids.shape[1] :] == layout.pad).all()
    assert torch.equal(columns.flatten() + 1, wanted.code_columns)


def test_an_unconditional_row_starts_at_the_image(layout: ChameleonLayout) -> None:
    packer = TokenPacker(layout, [layout.encode_prompt(text) for text in PROMPTS], SIDE)
    picture = codes(1)
    ids, columns = packer.pack(torch.tensor([1]), picture, torch.tensor([True]))
    wanted = layout.unconditional(picture[0].view(SIDE, SIDE))
    assert ids[0, : len(wanted.ids)].tolist() == wanted.ids.tolist()
    assert (columns[0] + 1).tolist() == wanted.code_positions.tolist()
