"""Speculative Jacobi decoding (arXiv 2410.01699): several codes a forward pass, without loss.

A pass reads a window of drafted codes and gives the distribution p of each. Drafts are accepted from left to
right with probability min(1, p / q), where q is the distribution that the draft was drawn from. The first
that is refused is drawn anew from max(0, p - q), and all behind it are drafted anew from their p; codes that
enter the window are drafted from the last p. So each pass decides at least one code, and each code has
exactly the distribution of one that is drawn after the codes before it.
B pictures, R rows of a forward (B for each side of guidance), W window, V codes, S tokens of a picture with
its newlines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from stylear.sampling.decode import (
    CodeSampler,
    StepRunner,
    compute_probabilities,
    invert,
)

if TYPE_CHECKING:
    from stylear.model.layout import TokenLayout
    from stylear.model.transformer import Decoder


class SpeculativeSampler(CodeSampler):
    """Draws batches of image codes as `CodeSampler` does, with a window of drafts in each forward pass.

    At temperature 0 the codes are the same. Otherwise they have the same distribution and are others, as
    speculation takes more random numbers: a picture's are seeded by its first draw, so that it does not
    depend on the others of its batch. `passes` counts the forward passes of the last batch.
    """

    def __init__(
        self, decoder: Decoder, layout: TokenLayout, *, window: int, **settings: Any
    ) -> None:
        super().__init__(decoder, layout, **settings)
        self.window = window
        self.passes = 0

    @torch.inference_mode()
    def draw(
        self,
        prompts: Sequence[Sequence[int]],
        styles: Sequence[Tensor | None],
        draws: Tensor,
        style_prompts: Sequence[Sequence[int]] | None = None,
    ) -> Tensor:
        """Image codes (B, h, w); `draws` (B, h, w) decides them as a seed does."""
        _, height, width = draws.shape
        embeds, lengths = self.embed_prompts(prompts, styles, style_prompts, height, width)
        generators = [
            Generator().manual_seed(int(first * 2**53)) for first in draws[:, 0, 0].tolist()
        ]
        used = embeds.shape[1]
        window = _Window(self, embeds, lengths, height, width)
        numbers = torch.empty(len(prompts), 2 * self.window + 1, dtype=torch.float64)
        done, self.passes = 1, 0
        while True:
            for row, generator in zip(numbers, generators, strict=True):
                torch.rand(numbers.shape[1], generator=generator, out=row)
            if self.passes == 0:
                window.start(embeds, numbers)
            else:
                window.step(numbers, self.round_up(used + done + self.window))
            self.passes += 1
            decided = window.done.tolist()  # waits for the device, once a pass
            done = max(decided)
            if min(decided) == window.tokens:
                return window.read_codes(height, width)


class _Window:
    """The tensors of one batch on the device: what is decided, and the drafts behind it."""

    def __init__(
        self, sampler: SpeculativeSampler, embeds: Tensor, lengths: Tensor, height: int, width: int
    ) -> None:
        decoder, device = sampler.decoder, sampler.device
        self.sampler, self.lengths = sampler, lengths
        rows, longest = embeds.shape[:2]
        pictures = rows // sampler.guidance.sides
        self.runner = StepRunner(device, captures=sampler.captures)
        newline = sampler.layout.newline
        row = width if newline is None else width + 1
        self.tokens = height * row - (row - width)
        # behind its last token a picture has fillers, which are read and lead to nothing
        total = self.tokens + sampler.window + 1
        self.is_code = torch.arange(total, device=device) % row != width
        self.is_code[self.tokens :] = False
        filler = sampler.layout.pad if newline is None else newline
        self.ids = torch.tensor(sampler.layout.image_token_ids, device=device)  # by code
        self.filler = torch.tensor(filler, device=device)
        self.codes = torch.zeros(pictures, total, dtype=torch.long, device=device)
        self.done = torch.zeros(pictures, dtype=torch.long, device=device)  # decided tokens
        self.drafts = torch.zeros(pictures, sampler.window, dtype=torch.long, device=device)
        self.q = torch.zeros(
            pictures, sampler.window, len(self.ids), dtype=torch.float64, device=device
        )
        self.numbers = torch.zeros(
            pictures, 2 * sampler.window + 1, dtype=torch.float64, device=device
        )
        self.cache = decoder.new_cache(rows, sampler.round_up(longest + total))

    def start(self, embeds: Tensor, numbers: Tensor) -> None:
        """Read the prompts, decide the first code and draft a window behind it from the same distribution."""
        self.numbers.copy_(numbers)
        self.cache.attended = embeds.shape[1]
        hidden = self.sampler.decoder(embeds, self.cache)
        rows = torch.arange(len(self.lengths), device=self.lengths.device)
        p = self._compute_probabilities(hidden[rows, self.lengths - 1])  # (B, V)
        self.codes[:, 0] = invert(p, self.numbers[:, -1])
        self._advance(torch.ones_like(self.done))
        self._draft(p[:, None].expand_as(self.q))

    def step(self, numbers: Tensor, attended: int) -> None:
        """Read the window, decide one token or more, and draft new ones after them."""
        self.numbers.copy_(numbers)
        self.cache.attended = attended
        self.runner.run(attended, self._run_step)

    def read_codes(self, height: int, width: int) -> Tensor:
        """The codes (B, h, w) of finished pictures."""
        return self.codes[:, : self.tokens][:, self.is_code[: self.tokens]].view(-1, height, width)

    def _run_step(self) -> None:
        window = self.sampler.window
        places = torch.arange(window, device=self.done.device)
        positions = self.done[:, None] + places  # (B, W)
        is_code = self.is_code[positions]
        fed = positions - 1
        previous = torch.where(places == 0, self.codes.gather(1, fed), self.drafts.roll(1, dims=1))
        ids = torch.where(self.is_code[fed], self.ids[previous], self.filler)
        ids = ids.repeat(self.sampler.guidance.sides, 1)
        decoder = self.sampler.decoder
        p = self._compute_probabilities(decoder(decoder.embed(ids), self.cache))  # (B, W, V)
        chosen = self.drafts[..., None]
        p_draft, q_draft = (share.gather(-1, chosen)[..., 0] for share in (p, self.q))
        accepted = (self.numbers[:, :window] * q_draft < p_draft) | ~is_code
        count = accepted.long().cumprod(dim=1).sum(dim=1)  # (B,)
        refused = count.clamp(max=window - 1)[:, None, None].expand(-1, 1, p.shape[-1])
        p_refused = p.gather(1, refused)[:, 0]
        residual = (p_refused - self.q.gather(1, refused)[:, 0]).clamp(min=0)
        residual = torch.where(residual.sum(dim=-1, keepdim=True) > 0, residual, p_refused)
        drawn = invert(residual, self.numbers[:, -1])
        decided = torch.where(places == count[:, None], drawn[:, None], self.drafts)
        self.codes.scatter_(1, positions, decided)
        moved = (count + 1).clamp(max=window)
        self._advance(moved)
        behind = (places + moved[:, None]).clamp(max=window - 1)
        self._draft(p.gather(1, behind[..., None].expand_as(p)))

    def _advance(self, moved: Tensor) -> None:
        """Count decided tokens; all but the last of them are in the cache."""
        self.done.copy_((self.done + moved).clamp(max=self.tokens))
        rows = len(self.lengths) // len(self.done)
        self.cache.lengths.copy_(self.lengths + (self.done - 1).repeat(rows))

    def _draft(self, q: Tensor) -> None:
        window = self.sampler.window
        self.q.copy_(q)
        self.drafts.copy_(invert(self.q, self.numbers[:, window : 2 * window]))

    def _compute_probabilities(self, hidden: Tensor) -> Tensor:
        settings = self.sampler
        return compute_probabilities(
            settings.compute_logits(hidden), settings.top_k, settings.temperature
        )
