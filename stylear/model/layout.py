"""Token layout: caption, style token placeholders and image codes as one sequence of ids.

The layout is Chameleon's as Lumina-mGPT uses it: `<s>` prompt `<reserved08706>`, then the image:
`<racm3:break>`, height and width in units of two codes, rows of codes each ended by
`<reserved08799>`, `<eoss>`. B batch, T tokens, h w code grid, K style tokens, N codes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from torch import Tensor

from stylear.errors import WeightsError

BOS, PAD, EOS, UNK = "<s>", "<pad>", "</s>", "<unk>"
IMAGE_START, IMAGE_END = "<racm3:break>", "<eoss>"
SEPARATOR, NEWLINE = "<reserved08706>", "<reserved08799>"
SIZE_BASE = 8800  # `<reserved08800 + n>` says a side of n units
CODES_PER_UNIT = 2
STYLE_PLACEHOLDER = "S*"  # released code
_DIGITS = str.maketrans("ABCDEFGHIJ", "0123456789")
_LETTERS = str.maketrans("0123456789", "ABCDEFGHIJ")
_CODE_NAME = re.compile(r"IMGIMG([A-J]+)Z")
_SPECIAL = re.compile(r"<(?=/?[a-z|]+[0-9]*[:a-z|]*>)|IMGIMG(?=[A-J]+Z)")


def code_name(code: int) -> str:
    """The token of an image code: 137 is IMGIMGBDHZ."""
    return f"IMGIMG{str(code).translate(_LETTERS)}Z"


def size_name(units: int) -> str:
    """The token of a side of `units` times two codes."""
    return f"<reserved{SIZE_BASE + units:05d}>"


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


class TokenLayout:
    """The meaning of ids, from a tokenizer's vocabulary. Raises WeightsError if it lacks the image tokens."""

    def __init__(self, tokenizer: Tokenizer, style_placeholder: str = STYLE_PLACEHOLDER) -> None:
        self.tokenizer = tokenizer
        self.vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
        codes = {
            int(match[1].translate(_DIGITS)): id
            for name, id in self.vocabulary.items()
            if (match := _CODE_NAME.fullmatch(name))
        }
        if not codes or sorted(codes) != list(range(len(codes))):
            raise WeightsError(
                f"tokenizer: expected names IMGIMGAZ... of codes 0 to n, found {len(codes)} names"
            )
        self.image_token_ids = tuple(codes[code] for code in range(len(codes)))
        self.bos, self.pad, self.sep = self._id(BOS), self._id(PAD), self._id(SEPARATOR)
        self.newline = self._id(NEWLINE)
        self.image_start, self.image_end = self._id(IMAGE_START), self._id(IMAGE_END)
        self.style_placeholder = self.vocabulary.get(style_placeholder)
        self._style_name = style_placeholder
        self.code_ids = torch.tensor(self.image_token_ids)

    @classmethod
    def from_file(cls, path: str | Path, style_placeholder: str = STYLE_PLACEHOLDER) -> TokenLayout:
        """The layout of a tokenizer.json."""
        path = Path(path)
        if not path.is_file():
            raise WeightsError(f"{path}: expected this file in the model directory, found nothing")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception for a malformed file
            raise WeightsError(f"{path}: expected a tokenizer, found: {error}") from error
        return cls(tokenizer, style_placeholder)

    def _id(self, name: str) -> int:
        try:
            return self.vocabulary[name]
        except KeyError:
            raise WeightsError(f"tokenizer: expected the token {name}, found none") from None

    @property
    def num_codes(self) -> int:
        return len(self.image_token_ids)

    def size_token(self, units: int) -> int:
        """The id of the token for a side of `units` times two codes."""
        return self._id(size_name(units))

    def prefix(self, height: int, width: int) -> list[int]:
        """The image's first three ids, for a grid of height x width codes."""
        for side in (height, width):
            if side <= 0 or side % CODES_PER_UNIT:
                raise ValueError(f"codes: sides must be even, got {height} x {width}")
        sizes = [self.size_token(side // CODES_PER_UNIT) for side in (height, width)]
        return [self.image_start, *sizes]

    def image_span(self, codes: Tensor) -> list[int]:
        """The whole image: prefix, rows of codes (h, w) each with its newline, image end."""
        height, width = codes.shape
        rows = torch.nn.functional.pad(self.code_ids[codes.cpu()], (0, 1), value=self.newline)
        return [*self.prefix(height, width), *rows.flatten().tolist(), self.image_end]

    def code_offsets(self, height: int, width: int) -> Tensor:
        """Offsets (h w,) of the codes from the first id of an image span."""
        index = torch.arange(height * width)
        return 3 + index + index // width

    def encode_prompt(
        self,
        caption: str,
        num_style_tokens: int = 0,
        template: str = "{prompt}",
        image: Tensor | None = None,
    ) -> list[int]:
        """Ids from `<s>` to the separator, `{style}` of the template as placeholder ids.

        `image` (h, w) are image codes for `{image}` of the template: a whole image within the text.
        Special tokens inside the caption are broken up, so that they remain text. Raises WeightsError if
        the tokenizer does not give exactly one placeholder id for each style token.
        """
        style = " ".join([self._style_name] * num_style_tokens)
        words = self._words(caption)
        ids = [self.bos]
        for i, part in enumerate(template.split("{image}", 1) if image is not None else [template]):
            if i and image is not None:
                ids += self.image_span(image)
            text = part.replace("{style}", style).replace("{prompt}", words)
            ids += self.encode_text(text.strip() if num_style_tokens == 0 else text)
        ids.append(self.sep)
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

    def _words(self, caption: str) -> str:
        head, rest = self._style_name[:1], self._style_name[1:]
        caption = caption.replace(self._style_name, f"{head} {rest}")
        return _SPECIAL.sub(lambda match: f"{match[0]} ", caption)

    def example(
        self,
        caption: str,
        codes: Tensor,
        num_style_tokens: int = 0,
        template: str = "{prompt}",
    ) -> Example:
        """A training sequence of a caption and its image codes (h, w)."""
        return self._example(self.encode_prompt(caption, num_style_tokens, template), codes)

    def unconditional(self, codes: Tensor) -> Example:
        """An unconditional training sequence: it starts at the image start token, as in the released code."""
        return self._example([], codes)

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


def build_tokenizer(
    captions: Iterable[str],
    num_codes: int,
    size_units: Sequence[int],
    text_vocabulary: int = 4096,
) -> Tokenizer:
    """A tokenizer in Chameleon's naming: lower-cased byte-level BPE trained on captions.

    Every text is representable (bytes are in the vocabulary). `size_units` are the image sides, in
    units of two codes, that get a token; `text_vocabulary` limits the ids of text. The same
    captions give the same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    names = [BOS, PAD, EOS, UNK]
    names += [code_name(code) for code in range(num_codes)]
    names += [IMAGE_END, IMAGE_START, SEPARATOR, NEWLINE, *map(size_name, sorted(set(size_units)))]
    special = [AddedToken(name, special=True, normalized=False) for name in names]
    # the placeholder takes the space before it, so that "S* S*" is two ids and not three
    special.append(AddedToken(STYLE_PLACEHOLDER, special=True, normalized=False, lstrip=True))
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + text_vocabulary,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(captions), trainer)
    return tokenizer
