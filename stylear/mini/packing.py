"""Token rows packed by array operations: small models would otherwise wait for Python.

B batch, T tokens of a row, N codes of a picture, L tokens of its image span.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stylear.model.layout import TokenLayout


class TokenPacker:
    """Rows of a fixed length: a prompt, the image span of a square grid, and padding on the right.

    `prompts` are token ids; a batch names them by their number. All tensors live on `device`.
    """

    def __init__(
        self,
        layout: TokenLayout,
        prompts: Sequence[Sequence[int]],
        side: int,
        device: str = "cpu",
    ) -> None:
        assert layout.newline is not None, "mini models are of the Chameleon family"
        self.side, self.pad = side, layout.pad
        self.newline, self.image_end = layout.newline, layout.image_end
        self.lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self.prompts = torch.full(
            (len(prompts), int(self.lengths.max())), layout.pad, device=device
        )
        for row, prompt in enumerate(prompts):
            self.prompts[row, : len(prompt)] = torch.tensor(prompt)
        self.code_ids = torch.tensor(layout.image_token_ids, device=device)
        self.prefix = torch.tensor(layout.prefix(side, side), device=device)
        self.offsets = layout.code_offsets(side, side).to(device)  # (N,)

    def pack(self, prompts: Tensor, codes: Tensor, unconditional: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (B, T) of prompts (B,) and codes (B, N), and the columns (B, N) that predict each code.

        A row marked in `unconditional` (B,) has no prompt: it starts at the image.
        """
        batch, side = len(prompts), self.side
        lengths = torch.where(unconditional, 0, self.lengths[prompts])[:, None]
        image = F.pad(self.code_ids[codes].view(batch, side, side), (0, 1), value=self.newline)
        end = torch.full((batch, 1), self.image_end, device=image.device)
        span = torch.cat([self.prefix.expand(batch, -1), image.flatten(1), end], 1)  # (B, L)
        texts = self.prompts[prompts]
        column = torch.arange(texts.shape[1] + span.shape[1], device=image.device).expand(batch, -1)
        position = column - lengths  # in the span; negative inside the prompt
        ids = torch.where(
            position < 0,
            texts.gather(1, column.clamp(max=texts.shape[1] - 1)),
            span.gather(1, position.clamp(0, span.shape[1] - 1)),
        )
        ids = torch.where(position >= span.shape[1], self.pad, ids)
        return ids, lengths + self.offsets - 1
