"""Context: how much of a model's context a prompt and its image take, and prompts that exceed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from stylear.model.style_model import StyleModel

Size = int | tuple[int, int]  # pixels: the side of a square, or width and height
SHOWN_LETTERS = 40  # of a prompt in a warning


@dataclass(frozen=True, slots=True)
class PromptLength:
    """The number of tokens of a prompt, and the maximum that leaves room for the image."""

    prompt: str
    tokens: int
    max_tokens: int

    @property
    def tokens_beyond_context(self) -> int:
        """How many tokens of the sequence lie beyond the context; 0 if it fits."""
        return max(0, self.tokens - self.max_tokens)

    def to_dict(self) -> dict[str, Any]:
        """As metadata of an image."""
        return {
            "prompt_tokens": self.tokens,
            "tokens_beyond_context": self.tokens_beyond_context,
        }


def compute_grid(model: StyleModel, size_px: Size | None) -> tuple[int, int]:
    """Codes along the height and the width of a picture; the model's own grid if `size_px` is None.

    `size_px` is the side of a square, or (width, height). Raises UsageError if the size is none that the
    model can draw.
    """
    if size_px is None:
        return model.grid
    width, height = (size_px, size_px) if isinstance(size_px, int) else size_px
    return model.layout.compute_grid(height, width, model.vq.config.factor)


def measure_prompt(
    model: StyleModel,
    prompt: str,
    *,
    is_styled: bool,
    size_px: Size | None = None,
    control: Tensor | None = None,
) -> PromptLength:
    """How many tokens a prompt takes, and the maximum for an image of `size_px` pixels.

    `control` (h, w) are the codes of a control image within the prompt. The last code of a picture is never
    fed back, so it needs no position in the context.
    """
    height, width = compute_grid(model, size_px)
    picture = int(model.layout.code_offsets(height, width)[-1])
    tokens = len(model.encode_prompt(prompt, style=is_styled, control=control))
    return PromptLength(prompt, tokens, model.decoder.config.max_position_embeddings - picture)


def describe_long_prompts(lengths: Sequence[PromptLength], model: str) -> str | None:
    """A warning about the prompts that are too long for a model; None if there are none."""
    long = [prompt for prompt in lengths if prompt.tokens_beyond_context]
    if not long:
        return None
    worst = max(long, key=lambda prompt: prompt.tokens_beyond_context)
    shown = worst.prompt[:SHOWN_LETTERS] + ("..." if len(worst.prompt) > SHOWN_LETTERS else "")
    return (
        f"{len(long)} of {len(lengths)} prompts are longer than the context of {model}, which holds"
        f" {worst.max_tokens} tokens beside the picture: {shown!r} has {worst.tokens}. Positions beyond the"
        " context were never trained; shorten the prompt"
    )
