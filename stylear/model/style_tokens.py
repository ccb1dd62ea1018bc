"""Style tokens: computed from features of a reference, put where the prompt has placeholders.

B batch, N features, W their width, K style tokens, T tokens, D the decoder's width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

STYLE_TOKENS = 16  # of a new model, as in the released code
REMOVAL = 0.8  # as in the released code


def add_noise(tokens: Tensor, sigma: float, generators: Generator | Sequence[Generator]) -> Tensor:
    """Style-enhanced tokens: tokens (B, K, D) + sigma * N(0, 1), sigma 0.1 to 0.3 in the paper.

    With one generator per row, the noise of a row does not depend on the batch. Noise is drawn on the CPU in
    float32, so that it is the same on every device.
    """
    if sigma == 0:
        return tokens
    if isinstance(generators, Generator):
        noise = torch.randn(tokens.shape, generator=generators)
    else:
        if len(generators) != tokens.shape[0]:
            raise ValueError(f"generators: expected {tokens.shape[0]}, got {len(generators)}")
        noise = torch.stack([torch.randn(tokens.shape[1:], generator=g) for g in generators])
    return tokens + sigma * noise.to(tokens)


def remove_subject(
    style: Tensor,
    subject: Tensor,
    resampler: Callable[[Tensor], Tensor],
    strength: float = REMOVAL,
) -> Tensor:
    """Style tokens (B, K, D) without the subject: (1-s) R(style) + s R(style - s subject).

    `style` and `subject` are the features (B, N, W) of the reference and of its cut-out subject;
    s = `strength`, 0.8 in the released code. Strength 0 gives R(style).
    """
    plain = resampler(style)
    if strength == 0:
        return plain
    return (1 - strength) * plain + strength * resampler(style - strength * subject)


def insert_style_tokens(embeds: Tensor, tokens: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Embeddings (B, T, D) with style tokens at (rows, columns); gradients flow to both.

    `tokens` (B', K, D) are those of the styled rows, in order. Raises ValueError if the number of positions
    is not B' K.
    """
    flat = tokens.reshape(-1, tokens.shape[-1])
    if len(rows) != len(flat):
        raise ValueError(f"style tokens: {len(rows)} positions for {len(flat)} tokens")
    return embeds.index_put((rows, columns), flat.to(embeds.dtype))
