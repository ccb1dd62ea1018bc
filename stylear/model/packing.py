"""Prompts and image codes packed into a batch by array operations, without a loop over tokens.

B batch, T tokens, h w code grid, N = h w codes, L tokens of an image span.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from stylear.model.layout import Batch, TokenLayout


def pack_batch(layout: TokenLayout, prompts: Sequence[Sequence[int]], codes: Tensor) -> Batch:
    """A batch of prompts and the codes (B, h, w) of their images, padded on the right.

    A null prompt makes an unconditional row. The result equals that of `collate` over `layout.example`.
    """
    batch, height, width = codes.shape
    spans = pack_images(layout, codes)  # (B, L)
    starts = torch.tensor([len(prompt) for prompt in prompts])[:, None]  # (B, 1)
    lengths = starts + spans.shape[1]
    column = torch.arange(int(lengths.max()))
    ids = torch.full((batch, len(column)), layout.pad)
    ids[column < starts] = torch.tensor(list(chain.from_iterable(prompts)), dtype=torch.long)
    ids[(column >= starts) & (column < lengths)] = spans.flatten()
    style = ids == (-1 if layout.style_placeholder is None else layout.style_placeholder)
    style_rows, style_columns = style.nonzero(as_tuple=True)
    return Batch(
        ids=ids,
        lengths=lengths[:, 0],
        styled=style.any(1),
        style_rows=style_rows,
        style_columns=style_columns,
        code_rows=torch.arange(batch).repeat_interleave(height * width),
        code_columns=(starts + layout.code_offsets(height, width)).flatten(),
        codes=codes.flatten().long(),
    )


def pack_images(layout: TokenLayout, codes: Tensor) -> Tensor:
    """The image spans (B, L) of codes (B, h, w), as `layout.image_span` makes them."""
    batch, height, width = codes.shape
    rows = layout.code_ids[codes.long()]
    if layout.newline is not None:
        rows = F.pad(rows, (0, 1), value=layout.newline)
    rows = rows.flatten(1)
    prefix = torch.tensor(layout.prefix(height, width)).expand(batch, -1)
    return torch.cat([prefix, rows, torch.full((batch, 1), layout.image_end)], 1)
