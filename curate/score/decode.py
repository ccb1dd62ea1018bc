"""Decode the images of a shard, and split feature batches into rows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from stylear.encoders.preprocess import to_rgb
from stylear.errors import CorpusError, SourceError

if TYPE_CHECKING:
    from stylear.pair import Pair

FORMATS = ("PNG", "JPEG", "WEBP")


def decode_pair_image(pair: Pair) -> Image.Image:
    """The stored image of a pair as RGB. Raises CorpusError naming the key if it does not decode."""
    try:
        with Image.open(io.BytesIO(pair.image), formats=FORMATS) as image:
            image.load()
            return to_rgb(image)
    except (OSError, ValueError, SyntaxError, SourceError, Image.DecompressionBombError) as error:
        raise CorpusError(f"pair {pair.key}: its image does not decode: {error}") from error


def concatenate_rows(batches: Sequence[Any]) -> list[Any]:
    """The rows of feature batches; tensors are moved to the CPU in one copy."""
    import torch

    if batches and isinstance(batches[0], torch.Tensor):
        return list(torch.cat(list(batches)).cpu())
    return [row for batch in batches for row in batch]
