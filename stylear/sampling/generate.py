"""Generate pictures from prompts and style references, in batches.

Each forward pass serves both sides of guidance: conditional rows first, unconditional rows second.
Only image codes are sampled; newline and size tokens are set by the layout.
B pictures, R rows of a forward (B or 2B), T tokens, K style tokens, D hidden, V codes, N = h w.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from stylear.console import say_warning
from stylear.encoders.preprocess import Picture, to_rgb
from stylear.encoders.segment import Mask, cut_out
from stylear.errors import UsageError
from stylear.model.style_tokens import REMOVAL, add_noise, insert_style_tokens, remove_subject
from stylear.sampling.context import compute_grid, describe_long_prompts, measure_prompt

if TYPE_CHECKING:
    from stylear.model.layout import TokenLayout
    from stylear.model.style_model import StyleModel
    from stylear.model.transformer import Decoder

GUIDANCE = 4.0  # released code
TOP_K = 2000  # released code
TEMPERATURE = 1.0  # released code
NOISE = 0.3  # StyleAR paper: 0.1 to 0.3 at inference
BATCH_SIZE = 32  # our choice


def generate(
    model: StyleModel,
    prompts: Sequence[str],
    references: Sequence[Picture | None] | None = None,
    *,
    seeds: Sequence[int],
    guidance: float = GUIDANCE,
    top_k: int = TOP_K,
    temperature: float = TEMPERATURE,
    noise: float = NOISE,
    masks: Sequence[Mask | None] | None = None,
    removal: float = REMOVAL,
    size_px: int | None = None,
    batch_size: int = BATCH_SIZE,
    on_batch: Callable[[int], None] | None = None,
    warn: bool = True,
) -> list[Image.Image]:
    """One PIL picture for each prompt, drawn with the reference and the seed at the same position.

    A picture depends on its own prompt, reference, mask and seed, not on the others of its batch.

    model        from `load_model`
    references   a style reference (PIL image, encoded bytes or uint8 array (H, W, 3)) or None for each prompt
    seeds        an integer for each prompt
    guidance     classifier-free guidance: u + guidance (c - u) on logits; 1 turns it off
    top_k        sample from the k likeliest image codes
    temperature  divides the logits; 0 takes the likeliest code
    noise        standard deviation of the noise on style tokens (0.1 to 0.3 in the paper)
    masks        bool (H, W), True on the subject of a reference, whose content is then removed from the style
    removal      strength of that removal, 0 to 1
    size_px      side of the square pictures in pixels; the model's own size if None
    batch_size   pictures drawn in one batch
    on_batch     called with the number of pictures that were finished
    warn         whether prompts longer than the model's context are reported on stderr

    Raises UsageError if a setting is out of range, if lists differ in length, or if a reference is given to a
    model without style tokens. Sampling follows StyleAR's released code, noise its paper.
    """
    _check_settings(guidance=guidance, top_k=top_k, temperature=temperature, noise=noise)
    count = len(prompts)
    references = list(references) if references is not None else [None] * count
    masks = list(masks) if masks is not None else [None] * count
    for name, values in (("references", references), ("masks", masks), ("seeds", seeds)):
        if len(values) != count:
            raise UsageError(
                f"{name}: expected one for each of {count} prompts, found {len(values)}"
            )
    height, width = compute_grid(model, size_px)
    if warn:
        lengths = [
            measure_prompt(model, prompt, is_styled=style, size_px=size_px)
            for prompt, style in dict.fromkeys(
                (prompt, reference is not None)
                for prompt, reference in zip(prompts, references, strict=True)
            )
        ]
        if warning := describe_long_prompts(lengths, model.name):
            say_warning(warning)
    pictures: list[Image.Image] = []
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        generators = [Generator().manual_seed(seed) for seed in seeds[part]]
        # uniform numbers first, so that they do not depend on the noise level
        draws = torch.stack(
            [torch.rand(height * width, generator=g, dtype=torch.float64) for g in generators]
        )
        styles = encode_styles(model, references[part], masks[part], removal)
        styles = [
            None if tokens is None else add_noise(tokens[None], noise, [generator])[0]
            for tokens, generator in zip(styles, generators, strict=True)
        ]
        ids = [
            model.encode_prompt(prompt, style=tokens is not None)
            for prompt, tokens in zip(prompts[part], styles, strict=True)
        ]
        codes = sample_codes(
            model.decoder,
            model.layout,
            ids,
            styles,
            draws.view(-1, height, width),
            guidance=guidance,
            top_k=top_k,
            temperature=temperature,
        )
        pictures += decode_codes(model, codes)
        if on_batch is not None:
            on_batch(len(codes))
    return pictures


@torch.inference_mode()
def encode_styles(
    model: StyleModel,
    references: Sequence[Picture | None],
    masks: Sequence[Mask | None],
    removal: float = REMOVAL,
) -> list[Tensor | None]:
    """Style tokens (K, D) of each reference, without its subject if there is a mask.

    A reference that occurs several times is encoded once. Raises UsageError if the model has no style tokens.
    """
    if all(reference is None for reference in references):
        return [None] * len(references)
    if model.resampler is None or model.clip is None:
        raise UsageError(
            f"{model.name}: expected a model with style tokens, found a plain text-to-image model",
            hint="train it with `stylear train sft`, or leave --style out",
        )
    weight = next(model.resampler.parameters())
    ready: dict[tuple[int, int], Tensor] = {}
    tokens: list[Tensor | None] = []
    for reference, mask in zip(references, masks, strict=True):
        if reference is None:
            tokens.append(None)
            continue
        key = (id(reference), id(mask))
        if key not in ready:
            picture = to_rgb(reference)
            views = [picture] if mask is None else [picture, cut_out(picture, mask)]
            features = model.style_features(views).to(weight)
            if mask is None:
                ready[key] = model.resampler(features)[0]
            else:
                ready[key] = remove_subject(features[:1], features[1:], model.resampler, removal)[0]
        tokens.append(ready[key])
    return tokens


@torch.inference_mode()
def sample_codes(
    decoder: Decoder,
    layout: TokenLayout,
    prompts: Sequence[Sequence[int]],
    styles: Sequence[Tensor | None],
    draws: Tensor,
    *,
    guidance: float = GUIDANCE,
    top_k: int = TOP_K,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Image codes (B, h, w) for prompts (ids up to the separator) with their style tokens.

    `draws` (B, h, w) holds a uniform random number for each code. Guided logits are
    u + guidance (c - u); the unconditional sequence begins with the image start token, and guidance
    begins after the two size tokens, as in the released code. Guidance 1 needs no unconditional rows.
    """
    batch, height, width = draws.shape
    device = decoder.model.norm.weight.device
    prefix = layout.prefix(height, width)
    guided = guidance != 1
    rows = [[*ids, *prefix] for ids in prompts] + ([prefix] * batch if guided else [])
    embeds, valid = _pad_left(decoder, layout, rows, [*styles, *[None] * (len(rows) - batch)])
    slots = embeds.shape[1] + height * (width + 1)
    cache = decoder.new_cache(len(rows), slots)
    hidden = decoder(embeds, None if bool(valid.all()) else valid, cache)[:, -1]
    table = torch.tensor(layout.image_token_ids, device=device)
    uniform = draws.flatten(1).to(device)
    codes = torch.empty(batch, height * width, dtype=torch.long, device=device)
    for n in range(height * width):
        logits = decoder.image_logits(hidden).float()  # (R, V)
        if guided:
            conditional, unconditional = logits.chunk(2)
            logits = unconditional + guidance * (conditional - unconditional)
        codes[:, n] = sample_code(logits, uniform[:, n], top_k, temperature)
        if n + 1 == height * width:
            break
        ids = table[codes[:, n, None]]
        if (n + 1) % width == 0:  # the newline of a row is fed together with its last code
            ids = torch.cat([ids, torch.full_like(ids, layout.newline)], dim=1)
        ids = ids.repeat(2, 1) if guided else ids
        hidden = decoder(decoder.embed(ids), None, cache)[:, -1]
    return codes.view(batch, height, width)


def sample_code(logits: Tensor, uniform: Tensor, top_k: int, temperature: float) -> Tensor:
    """One code per row of logits (B, V), by inverse transform sampling at uniform (B,) in [0, 1).

    Only the `top_k` largest logits can be drawn; temperature 0 takes the largest.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    if top_k < logits.shape[-1]:
        threshold = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, float("-inf"))
    steps = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
    target = uniform.double()[:, None] * steps[:, -1:]
    # the first step above the target, so that its code has a probability above 0
    return torch.searchsorted(steps, target, right=True)[:, 0]


def decode_codes(model: StyleModel, codes: Tensor) -> list[Image.Image]:
    """Pictures of image codes (B, h, w)."""
    with torch.inference_mode():
        pixels = model.vq.decode(codes.to(next(model.vq.parameters()).device)).float()
    scaled = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()
    arrays: Any = scaled.permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(np.ascontiguousarray(array)) for array in arrays]


def _pad_left(
    decoder: Decoder,
    layout: TokenLayout,
    rows: Sequence[Sequence[int]],
    styles: Sequence[Tensor | None],
) -> tuple[Tensor, Tensor]:
    """Embeddings (R, T, D) of left-padded rows with style tokens in place, and their valid mask (R, T)."""
    device = decoder.model.norm.weight.device
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), layout.pad)
    valid = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.tensor(row)
        valid[i, longest - len(row) :] = True
    embeds = decoder.embed(ids.to(device))
    tokens = [style for style in styles if style is not None]
    if tokens:
        styled = torch.tensor([style is not None for style in styles])
        rows_, columns = ((ids == layout.style_placeholder) & styled[:, None]).nonzero(
            as_tuple=True
        )
        embeds = insert_style_tokens(
            embeds, torch.stack(tokens).to(device), rows_.to(device), columns.to(device)
        )
    return embeds, valid.to(device)


def _check_settings(*, guidance: float, top_k: int, temperature: float, noise: float) -> None:
    for name, value, minimum in (
        ("guidance", guidance, 0),
        ("top_k", top_k, 1),
        ("temperature", temperature, 0),
        ("noise", noise, 0),
    ):
        if not value >= minimum:
            raise UsageError(f"{name}: expected at least {minimum}, found {value}")
