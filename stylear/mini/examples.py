"""What the mini decoders are trained on: pictures as codes, captions and styles as numbers.

N pictures, L codes of a picture, P patches and W width of the style encoder's features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stylear.console import track
from stylear.encoders.clip import ClipEncoder
from stylear.mini.drawings import (
    Pictures,
    augment_copies,
    concatenate_pictures,
    drawings,
    in_styles,
    select_pictures,
    to_tensor,
)
from stylear.mini.everyday import EVERYDAY
from stylear.mini.styles import TRAIN_FAMILIES
from stylear.model.vq import FILES as VQ_FILES
from stylear.model.vq import VQModel
from stylear.pair import digest
from stylear.weights.files import hash_path
from stylear.weights.names import resolve_model

RAW_COPIES, STYLED_COPIES, VARIANTS, SHIFT = 8, 20, 96, 4
EVERYDAY_RAW_COPIES, EVERYDAY_STYLED_COPIES = 32, 300
FAMILIES = tuple(sorted(TRAIN_FAMILIES))


def named_style(caption: str, family: str) -> str:
    """The caption of a picture in a style that the caption names."""
    return f"{caption} in {family} style"


def training_pictures(limit: int | None = None) -> Pictures:
    """The embedded drawings as they are, moved, and in variants of the training styles.

    Raw pictures come first. `limit` takes only so many drawings.
    """
    raw = first_drawings(limit)
    plain = augment_copies(raw, RAW_COPIES, seed=1, shift=SHIFT)
    return concatenate_pictures(plain, in_styles(raw, STYLED_COPIES, VARIANTS, seed=2, shift=SHIFT))


def decoder_pictures(limit: int | None = None) -> Pictures:
    """The training pictures and further copies of everyday things, raw pictures first.

    A decoder of 3.5 M parameters draws in styles what it has seen in styles often; more than half of the
    styled pictures show one of the `EVERYDAY` things.
    """
    pictures, raw = training_pictures(limit), first_drawings(limit)
    everyday = [row for row, caption in enumerate(raw.captions) if caption in EVERYDAY]
    if not everyday:
        return pictures
    chosen = select_pictures(raw, everyday)
    num_raw = pictures.styles.count("")
    return concatenate_pictures(
        select_pictures(pictures, range(num_raw)),
        augment_copies(chosen, EVERYDAY_RAW_COPIES, seed=3, shift=SHIFT),
        select_pictures(pictures, range(num_raw, len(pictures))),
        in_styles(chosen, EVERYDAY_STYLED_COPIES, VARIANTS, seed=4, shift=SHIFT),
    )


def first_drawings(limit: int | None) -> Pictures:
    """The training drawings, or the first `limit` of them."""
    raw = drawings("train")
    return raw if limit is None else select_pictures(raw, range(limit))


@dataclass(frozen=True)
class Examples:
    """Pictures with their codes. `family` and `style` are -1 for a raw picture."""

    pictures: Pictures
    codes: Tensor  # (N, L) int64
    captions: tuple[str, ...]  # each once
    caption: Tensor  # (N,): index into `captions`
    family: Tensor  # (N,): index into FAMILIES
    style: Tensor  # (N,): equal for pictures of one style

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def num_raw(self) -> int:
        return int((self.family < 0).sum())

    @classmethod
    def of(cls, pictures: Pictures, codes: Tensor, device: str = "cpu") -> Examples:
        """The examples with their numbers on a device."""
        captions = tuple(sorted(set(pictures.captions)))
        index = {caption: number for number, caption in enumerate(captions)}
        styles = {style: n for n, style in enumerate(sorted(set(pictures.styles) - {""}))}
        numbers = (
            [index[caption] for caption in pictures.captions],
            [FAMILIES.index(s.split("/")[0]) if s else -1 for s in pictures.styles],
            [styles.get(style, -1) for style in pictures.styles],
        )
        columns = [torch.tensor(column, device=device) for column in numbers]
        return cls(pictures, codes.long().to(device), captions, *columns)

    def draw(self, count: int, raw_share: float, generator: torch.Generator) -> Tensor:
        """Indices (count,), a fixed share of them of raw pictures."""
        return draw_rows(self.num_raw, len(self), count, raw_share, generator)

    @cached_property
    def _by_style(self) -> tuple[Tensor, Tensor, Tensor]:
        order = self.style.argsort(stable=True)
        ordered = self.style[order]
        first = torch.searchsorted(ordered, self.style)
        return order, first, torch.searchsorted(ordered, self.style, right=True)

    def siblings(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """For each picture another one of its style, (B,); for a raw picture another raw one."""
        order, first, last = self._by_style
        start, count = first[indices], (last - first)[indices]
        draw = torch.rand(len(indices), generator=generator, device=generator.device)
        return order[start + (draw * count).long()]


def load_examples(
    work: Path, vq: str, *, device: str = "cpu", limit: int | None = None
) -> Examples:
    """The training pictures with their codes, which are kept in `work`."""
    directory = resolve_model(vq)
    pictures = decoder_pictures(limit)
    key = digest(
        "codes", hash_path(directory / VQ_FILES[0]), sha256(pictures.pixels.tobytes()).hexdigest()
    )
    cache = work / f"codes-{key[:16]}.safetensors"
    if cache.is_file():
        return Examples.of(pictures, load_file(cache)["codes"], device)
    codes = encode_pictures(pictures, VQModel.from_pretrained(directory, device))
    work.mkdir(parents=True, exist_ok=True)
    save_file({"codes": codes}, cache)
    return Examples.of(pictures, codes, device)


def draw_rows(
    num_raw: int, total: int, count: int, raw_share: float, generator: torch.Generator
) -> Tensor:
    """Indices (count,): a fixed share out of the first `num_raw`, the others out of the rest."""
    raw = int(count * raw_share)
    first = torch.randint(num_raw, (raw,), generator=generator, device=generator.device)
    rest = torch.randint(
        num_raw, total, (count - raw,), generator=generator, device=generator.device
    )
    return torch.cat([first, rest])


@torch.inference_mode()
def encode_pictures(pictures: Pictures, vq: VQModel, batch_size: int = 128) -> Tensor:
    """Codes (N, L) int16 of all pictures."""
    vq = vq.to(memory_format=torch.channels_last)
    device = next(vq.parameters()).device
    parts = []
    for start in track(range(0, len(pictures), batch_size), "encode pictures", unit="batches"):
        pixels = to_tensor(pictures.pixels[start : start + batch_size]).to(device)
        codes = vq.encode(pixels.to(memory_format=torch.channels_last))
        parts.append(codes.flatten(1).to("cpu", torch.int16))
    return torch.cat(parts)


@torch.inference_mode()
def style_features(pictures: Pictures, clip: ClipEncoder, batch_size: int = 512) -> Tensor:
    """Features (N, P, W) bf16 of all pictures, as the style tokens are made from."""
    parts = []
    for start in track(range(0, len(pictures), batch_size), "style features", unit="batches"):
        pixels = clip.preprocess(list(pictures.pixels[start : start + batch_size]))
        parts.append(clip.patch_features(pixels).bfloat16())
    return torch.cat(parts)
