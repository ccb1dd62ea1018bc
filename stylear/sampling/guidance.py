"""Classifier-free guidance over prompt and style: which rows a picture takes, and how their logits combine.

B pictures, R rows of a forward: B for each side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from stylear.model.layout import TokenLayout


@dataclass(frozen=True, slots=True)
class Guidance:
    """Scales of guidance. `style_scale` is that of the style alone; None is one scale for both.

    With one scale: u + g (c - u) on logits, c given prompt and style, u given neither. With two, s given the
    style and no text: u + style_scale (s - u) + g (c - s), as InstructPix2Pix guides by picture and
    instruction (arXiv 2211.09800, equation 3). Sides whose share is 0 take no rows.
    """

    scale: float
    style_scale: float | None = None

    @property
    def splits_style(self) -> bool:
        return self.style_scale is not None and self.style_scale != self.scale

    @property
    def sides(self) -> int:
        """Rows of a picture: 1 without guidance, 2, or 3 with two scales of which the style's is not 1."""
        if not self.splits_style:
            return 1 if self.scale == 1 else 2
        return 2 if self.style_scale == 1 else 3

    def prompt_rows(
        self,
        layout: TokenLayout,
        prompts: Sequence[Sequence[int]],
        styles: Sequence[Tensor | None],
        style_prompts: Sequence[Sequence[int]] | None,
    ) -> tuple[list[Sequence[int]], list[Tensor | None]]:
        """Ids and style tokens of all R rows: a block of B rows for each side.

        `style_prompts` (B) are the prompts with style tokens and an empty caption, which only two scales
        need. A picture without style has the null prompt there.
        """
        rows, tokens = [*prompts], [*styles]
        null: list[Sequence[int]] = [layout.null_prompt(ids) for ids in prompts]
        if self.splits_style:
            assert style_prompts is not None, "two scales need prompts of the style alone"
            rows += [
                empty if style is None else prompt
                for prompt, style, empty in zip(style_prompts, styles, null, strict=True)
            ]
            tokens += styles
        if self.sides > 1 and not (self.splits_style and self.style_scale == 1):
            rows += null
            tokens += [None] * len(prompts)
        return rows, tokens

    def combine(self, logits: Tensor) -> Tensor:
        """Guided logits (B, ..., V) of the rows' logits (R, ..., V)."""
        sides = logits.chunk(self.sides)
        if len(sides) == 1:
            return logits
        first, second = sides[:2]
        if len(sides) == 2:
            return second + self.scale * (first - second)
        assert self.style_scale is not None  # there are three sides
        unconditional = sides[2]
        styled = unconditional + self.style_scale * (second - unconditional)
        return styled + self.scale * (first - second)
