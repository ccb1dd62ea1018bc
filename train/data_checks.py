"""Problems of the training data, found before the first step."""

from __future__ import annotations

import numpy as np
import torch

from stylear.errors import CorpusError, UsageError
from stylear.model.style_model import StyleModel
from stylear.train.data import EncodedSet, build_prompt


def check_data(data: EncodedSet, batch_size: int, style_from: str) -> list[str]:
    """Warnings about data that a run can train on, but probably by mistake.

    Raises CorpusError if `style_from` is "sibling" and no image has a sibling, UsageError if images alone
    exceed the context of the model.
    """
    warnings = [*find_small_buckets(data, batch_size), *find_long_prompts(data)]
    if data.has_features:
        warnings += find_lone_styles(data, style_from)
    return warnings


def find_small_buckets(data: EncodedSet, batch_size: int) -> list[str]:
    """A warning for each of several grids that has fewer rows than a batch, which holds rows of one grid."""
    sizes = data.sampler.sizes.sum(1).tolist()
    if len(sizes) == 1:
        return []
    return [
        f"buckets: batch_size {batch_size} is more than the {size} pairs of {height}x{width} codes; their"
        " batches repeat pairs"
        for (height, width), size in zip(data.grids, sizes, strict=True)
        if size < batch_size
    ]


def find_lone_styles(data: EncodedSet, style_from: str) -> list[str]:
    """Warnings about styles that only one image shows, or a corpus of one style."""
    styles = data.styles
    known, lone = int(styles.is_known.sum()), int((styles.sizes[styles.is_known] == 1).sum())
    if style_from == "sibling" and lone == known:
        raise CorpusError(
            f"style_from sibling: expected styles with several images, found {known} styles, none with more"
            " than one image",
            hint="use --style-from self, or a corpus with more images of each style",
        )
    if known == len(styles.names) == 1:
        return [
            f"all {len(data)} pairs show one style ({styles.names[0]}); the model will not learn to follow"
            " the style of a reference"
        ]
    if style_from == "sibling" and lone:
        return [
            f"style_from sibling: {lone} of {known} styles have one image, which is its own sibling"
        ]
    return []


def find_long_prompts(data: EncodedSet) -> list[str]:
    """A warning if sequences exceed the context of the model. Raises UsageError if images alone do."""
    model = data.model
    context = model.decoder.config.max_position_embeddings
    long, longest, longest_key, start = 0, 0, "", 0
    caption_bytes = data.caption_bytes
    for grid, size in zip(data.grids, data.sampler.sizes.sum(1).tolist(), strict=True):
        image = count_image_tokens(model, grid)
        if image > context:
            raise UsageError(
                f"{model.name}: expected images of at most {context} tokens, its context, found {image} for"
                f" {grid[0]}x{grid[1]} codes",
                hint="leave this size out of buckets, or use a model with a longer context",
            )
        # a token is at least one byte, so only long captions have to be counted
        room = context - image - len(build_prompt(model, ""))
        rows = start + np.flatnonzero(caption_bytes[start : start + size] > room)
        captions, keys = data.read_column("caption", rows), data.read_column("key", rows)
        for caption, key in zip(captions, keys, strict=True):
            length = len(build_prompt(model, caption)) + image
            long += length > context
            if length > max(longest, context):
                longest, longest_key = length, key
        start += size
    if not long:
        return []
    return [
        f"{long} of {len(data)} sequences exceed the context of {model.name}, {context} tokens; the longest,"
        f" of {longest_key}, has {longest}. Shorten these captions: no position beyond it was ever trained"
    ]


def count_image_tokens(model: StyleModel, grid: tuple[int, int]) -> int:
    """Tokens of an image of a grid, with what its family puts around the codes."""
    return len(model.layout.image_span(torch.zeros(grid, dtype=torch.long)))
