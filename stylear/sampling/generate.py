"""Generate pictures from prompts and style references, in batches.

B pictures, K style tokens, D hidden, N = h w codes of a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from stylear.console import say_warning
from stylear.encoders.preprocess import Picture
from stylear.encoders.segment import Mask
from stylear.errors import UsageError
from stylear.model.int8 import count_freed_bytes
from stylear.model.style_tokens import REMOVAL, add_noise
from stylear.sampling.batch_memory import require_batch_memory
from stylear.sampling.context import Size, compute_grid, describe_long_prompts, measure_prompt
from stylear.sampling.control import encode_control
from stylear.sampling.decode import CodeSampler
from stylear.sampling.speculative import SpeculativeSampler
from stylear.sampling.styles import Style, encode_styles

if TYPE_CHECKING:
    from stylear.model.layout import TokenLayout
    from stylear.model.style_model import StyleModel
    from stylear.model.transformer import Decoder

GUIDANCE = 4.0  # released code
TOP_K = 2000  # released code
TEMPERATURE = 1.0  # released code
NOISE = 0.3  # StyleAR paper: 0.1 to 0.3 at inference
BATCH_SIZE = 32  # our choice
SAMPLED = ("guidance", "style_guidance", "top_k", "temperature")  # settings of `CodeSampler`
DECODED_PIXELS = 2**20  # our choice: pixels that the VQ model decodes at once


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings of `generate`, under the names of its keywords. Raises UsageError if one is out of range."""

    guidance: float = GUIDANCE
    style_guidance: float | None = None
    top_k: int = TOP_K
    temperature: float = TEMPERATURE
    noise: float = NOISE
    removal: float = REMOVAL
    size_px: Size | None = None
    batch_size: int = BATCH_SIZE
    speculate: int = 0

    def __post_init__(self) -> None:
        for name, value, minimum in (
            ("guidance", self.guidance, 0),
            ("style_guidance", 0 if self.style_guidance is None else self.style_guidance, 0),
            ("top_k", self.top_k, 1),
            ("temperature", self.temperature, 0),
            ("noise", self.noise, 0),
            ("batch_size", self.batch_size, 1),
            ("speculate", self.speculate, 0),
        ):
            if not value >= minimum:
                raise UsageError(f"{name}: expected at least {minimum}, found {value}")


def generate(
    model: StyleModel,
    prompts: Sequence[str],
    references: Sequence[Style | None] | None = None,
    *,
    seeds: Sequence[int],
    guidance: float = GUIDANCE,
    style_guidance: float | None = None,
    top_k: int = TOP_K,
    temperature: float = TEMPERATURE,
    noise: float = NOISE,
    masks: Sequence[Mask | None] | None = None,
    removal: float = REMOVAL,
    control: Picture | None = None,
    size_px: Size | None = None,
    batch_size: int = BATCH_SIZE,
    speculate: int = 0,
    on_batch: Callable[[int], None] | None = None,
    warn: bool = True,
) -> list[Image.Image]:
    """One PIL picture for each prompt, drawn with the reference and the seed at the same position.

    A picture depends on its own prompt, reference, mask and seed, not on the others of its batch.

    model        from `load_model`
    references   a style reference (PIL image, encoded bytes or uint8 array (H, W, 3)), a StyleBlend of
                 several, or None for each prompt
    seeds        an integer for each prompt
    guidance     classifier-free guidance: u + guidance (c - u) on logits; 1 turns it off
    style_guidance  a scale of its own for the style; `guidance` is then that of the text, see `Guidance`
    top_k        sample from the k likeliest image codes
    temperature  divides the logits; 0 takes the likeliest code
    noise        standard deviation of the noise on style tokens (0.1 to 0.3 in the paper)
    masks        bool (H, W), True on the subject of a reference, whose content is then removed from the style
    removal      strength of that removal, 0 to 1
    control      a depth map or segmentation that every picture follows, for models trained with them
    size_px      side of square pictures in pixels, or (width, height); the model's own size if None
    batch_size   pictures drawn in one batch
    speculate    codes drafted for each forward pass (speculative Jacobi decoding), 0 for none: pictures of
                 the same distribution in fewer passes, though not the same pictures unless temperature is 0
    on_batch     called with the number of pictures that were finished
    warn         whether prompts longer than the model's context are reported on stderr

    Raises UsageError if a setting is out of range, if lists differ in length, or if a reference is given to a
    model without style tokens. Sampling follows StyleAR's released code, noise its paper.
    """
    sampling = Sampling(
        guidance=guidance,
        style_guidance=style_guidance,
        top_k=top_k,
        temperature=temperature,
        noise=noise,
        removal=removal,
        size_px=size_px,
        batch_size=batch_size,
        speculate=speculate,
    )
    codes = (
        None if control is None else encode_control(model, control, *compute_grid(model, size_px))
    )
    if warn:
        styled = [r is not None for r in references or [None] * len(prompts)]
        lengths = [
            measure_prompt(model, prompt, is_styled=style, size_px=size_px, control=codes)
            for prompt, style in dict.fromkeys(zip(prompts, styled, strict=False))
        ]
        if warning := describe_long_prompts(lengths, model.name):
            say_warning(warning)
    pictures: list[Image.Image] = []
    for batch in generate_batches(model, prompts, references, masks, seeds, sampling, codes):
        pictures += batch
        if on_batch is not None:
            on_batch(len(batch))
    return pictures


def generate_batches(
    model: StyleModel,
    prompts: Sequence[str],
    references: Sequence[Style | None] | None,
    masks: Sequence[Mask | None] | None,
    seeds: Sequence[int],
    sampling: Sampling,
    control: Tensor | None = None,
) -> Iterator[list[Image.Image]]:
    """The pictures of `generate`, batch by batch; `control` (h, w) are the codes of its control image.

    Raises UsageError as `generate` does.
    """
    count = len(prompts)
    references = list(references) if references is not None else [None] * count
    masks = list(masks) if masks is not None else [None] * count
    for name, values in (("references", references), ("masks", masks), ("seeds", seeds)):
        if len(values) != count:
            raise UsageError(
                f"{name}: expected one for each of {count} prompts, found {len(values)}"
            )
    height, width = compute_grid(model, sampling.size_px)
    settings = {name: getattr(sampling, name) for name in SAMPLED}
    if all(reference is None for reference in references):
        settings["style_guidance"] = (
            None  # the side of the style alone would be the unconditional one
        )
    sampler = (
        SpeculativeSampler(model.decoder, model.layout, window=sampling.speculate, **settings)
        if sampling.speculate
        else CodeSampler(model.decoder, model.layout, **settings)
    )
    ids, style_ids = (
        [
            model.encode_prompt(text, style=reference is not None, control=control)
            for text, reference in zip(texts, references, strict=True)
        ]
        for texts in (prompts, [""] * count)
    )
    require_batch_memory(
        model.decoder.config,
        min(count, sampling.batch_size),
        max(map(len, ids), default=0)
        + int(model.layout.code_offsets(height, width)[-1])
        + sampling.speculate,
        sides=sampler.guidance.sides,
        dtype=model.decoder.model.norm.weight.dtype,
        device=model.device,
        quantization_frees=count_freed_bytes(model.decoder),
    )
    for start in range(0, count, sampling.batch_size):
        part = slice(start, start + sampling.batch_size)
        generators = [Generator().manual_seed(seed) for seed in seeds[part]]
        # uniform numbers first, so that they do not depend on the noise level
        draws = torch.stack(
            [torch.rand(height * width, generator=g, dtype=torch.float64) for g in generators]
        )
        styles = encode_styles(model, references[part], masks[part], sampling.removal)
        styles = [
            None if tokens is None else add_noise(tokens[None], sampling.noise, [generator])[0]
            for tokens, generator in zip(styles, generators, strict=True)
        ]
        codes = sampler.draw(ids[part], styles, draws.view(-1, height, width), style_ids[part])
        yield decode_codes(model, codes)


def sample_codes(
    decoder: Decoder,
    layout: TokenLayout,
    prompts: Sequence[Sequence[int]],
    styles: Sequence[Tensor | None],
    draws: Tensor,
    style_prompts: Sequence[Sequence[int]] | None = None,
    *,
    guidance: float = GUIDANCE,
    style_guidance: float | None = None,
    top_k: int = TOP_K,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Image codes (B, h, w) of one batch; see `CodeSampler.draw`."""
    sampler = CodeSampler(
        decoder,
        layout,
        guidance=guidance,
        style_guidance=style_guidance,
        top_k=top_k,
        temperature=temperature,
    )
    return sampler.draw(prompts, styles, draws, style_prompts)


@torch.inference_mode()
def decode_codes(model: StyleModel, codes: Tensor) -> list[Image.Image]:
    """Pictures of image codes (B, h, w)."""
    device = next(model.vq.parameters()).device
    size_px = codes[0].numel() * model.vq.config.factor**2
    pictures = []
    for part in torch.split(codes, max(1, DECODED_PIXELS // size_px)):
        pixels = model.vq.decode(part.to(device)).float()
        scaled = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()
        arrays: Any = scaled.permute(0, 2, 3, 1).cpu().numpy()
        pictures += [Image.fromarray(np.ascontiguousarray(array)) for array in arrays]
    return pictures
