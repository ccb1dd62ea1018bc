"""Token layout: caption, style token placeholders and image codes as one sequence of ids.

What all families share; the ids themselves are those of `stylear/model/families/`.
B batch, T tokens, h w code grid, K style tokens, N codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from stylear.errors import WeightsError


@dataclass(frozen=True)
class Example:
    """One sequence: ids (T,), the positions of style tokens and codes, and the codes in order.

    The code at index i of `ids` is predicted from index i - 1.
    """

    ids: Tensor  # (T,)
    style_positions: Tensor  # (K,), empty without style tokens
    code_positions: Tensor  # (N,)
    codes: Tensor  # (N,)
    image_start: int


@dataclass(frozen=True)
class Batch:
    """Examples padded on the right; style tokens and codes as (row, column) pairs."""

    ids: Tensor  # (B, T)
    lengths: Tensor  # (B,)
    styled: Tensor  # (B,) bool: the rows that have style tokens
    style_rows: Tensor  # (B' K,)
    style_columns: Tensor
    code_rows: Tensor  # (B N,)
    code_columns: Tensor  # columns of the codes; logits come from the column before
    codes: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


class TokenLayout(ABC):
    """The meaning of ids: which stand for text, style tokens, image codes and the image's frame.

    A family subclasses it. `image_token_ids` are the ids of the codes, ordered by code; `image_end` closes
    an image; `newline`, if there is one, closes each row of codes; `prompt_start` and `prompt_end` are the
    ids around the text of a prompt. Raises WeightsError if the tokenizer lacks a token of the family.
    """

    style_joiner = ""  # between the placeholders of a prompt
    newline: int | None = None
    image_end: int
    pad: int
    prompt_start: tuple[int, ...] = ()
    prompt_end: tuple[int, ...] = ()

    def __init__(
        self, tokenizer: Tokenizer, image_token_ids: Sequence[int], style_placeholder: str
    ) -> None:
        self.tokenizer = tokenizer
        self.vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
        self.image_token_ids = tuple(image_token_ids)
        self.style_placeholder = self.vocabulary.get(style_placeholder)
        self._style_name = style_placeholder
        self.code_ids = torch.tensor(self.image_token_ids)

    @abstractmethod
    def prefix(self, height: int, width: int) -> list[int]:
        """The ids between a prompt and its first code, for a grid of height x width codes."""

    @abstractmethod
    def null_prompt(self, prompt: Sequence[int]) -> list[int]:
        """The prompt of the unconditional sequence that guidance sets against this prompt (ids)."""

    @abstractmethod
    def escape_caption(self, caption: str) -> str:
        """The caption with special tokens broken up, so that they remain text."""

    @abstractmethod
    def compute_grid(self, height_px: int, width_px: int, factor: int) -> tuple[int, int]:
        """Codes along the height and width of a picture, `factor` pixels a code.

        Raises UsageError for a size that the family cannot draw.
        """

    @property
    def num_codes(self) -> int:
        return len(self.image_token_ids)

    def find_id(self, name: str) -> int:
        """The id of a token. Raises WeightsError if the vocabulary lacks it."""
        try:
            return self.vocabulary[name]
        except KeyError:
            raise WeightsError(
                f"tokenizer: expected the token {name}, found none",
                hint="use the tokenizer.json that was published with the model",
            ) from None

    def image_span(self, codes: Tensor) -> list[int]:
        """The whole image: prefix, rows of codes (h, w) each with its newline if there is one, image end."""
        height, width = codes.shape
        rows = self.code_ids[codes.cpu()]
        if self.newline is not None:
            rows = torch.nn.functional.pad(rows, (0, 1), value=self.newline)
        return [*self.prefix(height, width), *rows.flatten().tolist(), self.image_end]

    def code_offsets(self, height: int, width: int) -> Tensor:
        """Offsets (h w,) of the codes from the first id of an image span.

        The last one is also the number of ids that a decoder reads after the prompt to draw the image.
        """
        index = torch.arange(height * width)
        newlines = 0 if self.newline is None else index // width
        return len(self.prefix(height, width)) + index + newlines

    def encode_prompt(
        self,
        caption: str,
        num_style_tokens: int = 0,
        template: str = "{prompt}",
        image: Tensor | None = None,
    ) -> list[int]:
        """Ids of a prompt, with `{style}` of the template as placeholder ids.

        `image` (h, w) are image codes for `{image}` of the template: a whole image within the text.
        Special tokens inside the caption are broken up, so that they remain text. Raises WeightsError if
        the tokenizer does not give exactly one placeholder id for each style token.
        """
        style = self.style_joiner.join([self._style_name] * num_style_tokens)
        words = self.escape_caption(caption)
        ids = [*self.prompt_start]
        for i, part in enumerate(template.split("{image}", 1) if image is not None else [template]):
            if i and image is not None:
                ids += self.image_span(image)
            text = part.replace("{style}", style).replace("{prompt}", words)
            ids += self.encode_text(text.strip() if num_style_tokens == 0 else text)
        ids += self.prompt_end
        found = 0 if self.style_placeholder is None else ids.count(self.style_placeholder)
        if found != num_style_tokens:
            raise WeightsError(
                f"prompt: expected {self._style_name!r} {num_style_tokens} times, found {found}",
                hint="the prompt template must hold {style}, and the tokenizer the placeholder",
            )
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text, without the sequence's first and last."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def example(
        self,
        caption: str,
        codes: Tensor,
        num_style_tokens: int = 0,
        template: str = "{prompt}",
    ) -> Example:
        """A training sequence of a caption and its image codes (h, w)."""
        return self._example(self.encode_prompt(caption, num_style_tokens, template), codes)

    def unconditional(self, codes: Tensor, prompt: Sequence[int] = ()) -> Example:
        """The training sequence of image codes (h, w) without their prompt, as guidance uses it."""
        return self._example(self.null_prompt(prompt), codes)

    def _example(self, prompt: list[int], codes: Tensor) -> Example:
        ids = torch.tensor([*prompt, *self.image_span(codes)])
        placeholder = -1 if self.style_placeholder is None else self.style_placeholder
        return Example(
            ids=ids,
            style_positions=(ids == placeholder).nonzero()[:, 0],
            code_positions=len(prompt) + self.code_offsets(*codes.shape),
            codes=codes.flatten().long().cpu(),
            image_start=len(prompt),
        )


def read_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises WeightsError if there is none."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: expected this file in the model directory, found nothing")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for a malformed file
        raise WeightsError(f"{path}: expected a tokenizer, found: {error}") from error


def collate(examples: Sequence[Example], pad: int) -> Batch:
    """Examples as one batch, padded on the right with the id `pad`."""
    lengths = torch.tensor([len(e.ids) for e in examples])
    ids = torch.full((len(examples), int(lengths.max())), pad)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
    index = torch.arange(len(examples))
    style_counts = torch.tensor([len(e.style_positions) for e in examples])
    code_counts = torch.tensor([len(e.code_positions) for e in examples])
    return Batch(
        ids=ids,
        lengths=lengths,
        styled=style_counts > 0,
        style_rows=index.repeat_interleave(style_counts),
        style_columns=torch.cat([e.style_positions for e in examples]),
        code_rows=index.repeat_interleave(code_counts),
        code_columns=torch.cat([e.code_positions for e in examples]),
        codes=torch.cat([e.codes for e in examples]),
    )
