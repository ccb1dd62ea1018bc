"""Image preprocessing in two halves, which together give the bits of the model's own transform.

`resize` prepares one image in a loader thread, beside the model. `normalize` turns a whole batch into pixels
on the device, where dividing and shifting cost nothing.

Axes: B images, S image side in pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, Union

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from stylear.errors import SourceError

Picture = Union[bytes, Image.Image, "np.ndarray[Any, Any]"]
MAX_RATIO = 16  # our choice: of the sides of an image that is resized whole
ALPHA_MODES = ("LA", "PA", "RGBA")
PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}


class ImagePreprocessor:
    """The preprocessing of one model: images to pixels (B, 3, S, S) on its device."""

    def __init__(
        self,
        resize: Callable[[Image.Image], Tensor],
        normalize: Callable[[Tensor], Tensor],
        image_size: int,
        device: torch.device,
    ) -> None:
        self._resize, self._normalize = resize, normalize
        self.image_size, self.device = image_size, device

    @classmethod
    def from_open_clip(
        cls, transform: Any, image_size: int, device: torch.device
    ) -> ImagePreprocessor:
        """Split an open_clip transform: `resize` gives bytes (S, S, 3), `normalize` scales them.

        The transform of another version of open_clip stays whole in `resize`, which then gives pixels.
        """
        from torchvision.transforms import Compose

        *resize, _, normalize = steps = transform.transforms
        if [type(step).__name__ for step in steps[-2:]] != ["MaybeToTensor", "Normalize"]:
            return cls(transform, lambda batch: batch, image_size, device)
        # Normalize itself would wait for the GPU to check its own constants
        mean, std = (
            torch.tensor(value, device=device).view(-1, 1, 1)
            for value in (normalize.mean, normalize.std)
        )
        compose = Compose(resize)

        def scale(batch: Tensor) -> Tensor:
            levels = batch.permute(0, 3, 1, 2).contiguous().float()
            return levels.div_(255).sub_(mean).div_(std)

        return cls(
            lambda image: torch.from_numpy(np.array(compose(image))), scale, image_size, device
        )

    @classmethod
    def from_processor(
        cls, processor: Any, image_size: int, device: torch.device
    ) -> ImagePreprocessor:
        """Wrap an image processor of transformers, which does everything in `resize`."""

        def resize(image: Image.Image) -> Tensor:
            pixels: Tensor = processor(images=[image], return_tensors="pt")["pixel_values"]
            return pixels[0]

        return cls(resize, lambda batch: batch, image_size, device)

    def __call__(self, images: Sequence[Picture]) -> Tensor:
        """Encoded or decoded images to pixels (B, 3, S, S), transparent ones on white.

        Raises SourceError for bytes that are not an image.
        """
        return self.normalize([self.resize(image) for image in images])

    def resize(self, image: Picture) -> Tensor:
        """The first half, for one image; thread-safe. Raises SourceError for bytes that are not an image."""
        return self._resize(limit_ratio(to_rgb(image)))

    def normalize(self, resized: Sequence[Tensor]) -> Tensor:
        """The second half, for a batch of resized images: pixels (B, 3, S, S) on the device."""
        if not resized:
            return torch.empty(0, 3, self.image_size, self.image_size, device=self.device)
        batch = torch.stack(list(resized))
        if self.device.type == "cuda":  # copied while the GPU works
            batch = batch.pin_memory()
        return self._normalize(batch.to(self.device, non_blocking=True))


def to_rgb(image: Picture) -> Image.Image:
    """Convert an image of any mode to RGB, on white where it is transparent; 16 bits a channel become 8.

    Raises SourceError for bytes that do not decode, other arrays than pictures, and pictures without pixels.
    """
    if isinstance(image, bytes):
        try:
            image = Image.open(io.BytesIO(image))
            image.load()
        except UnidentifiedImageError as error:
            raise SourceError(
                "expected an image, found bytes that do not decode: no known format"
            ) from error
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise SourceError(
                f"expected an image, found bytes that do not decode: {error}"
            ) from error
    elif isinstance(image, np.ndarray):
        shape, dtype = image.shape, image.dtype
        try:
            image = Image.fromarray(image)
        except (TypeError, ValueError, KeyError) as error:
            raise SourceError(
                f"expected an image as uint8 (H, W, 3), found an array of {dtype} {shape}"
            ) from error
    if 0 in image.size:
        raise SourceError(f"expected an image, found one of {image.width}x{image.height} pixels")
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16 bits, or 16 bits read as 32
        levels = np.asarray(image).astype(np.int64)
        scale = 257 if image.mode != "I" or levels.max() > 255 else 1
        image = Image.fromarray((levels // scale).clip(0, 255).astype(np.uint8))
    if image.mode in PREMULTIPLIED:
        image = image.convert(PREMULTIPLIED[image.mode])
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layer)
    return image.convert("RGB")


def limit_ratio(image: Image.Image) -> Image.Image:
    """The image, cut to the centre of its longer side where that is more than MAX_RATIO times the other.

    A model scales the shorter side to its own and keeps a central square: a picture of 1 x 10,000 pixels
    would first become 2 million pixels long.
    """
    side = MAX_RATIO * min(image.size)
    if max(image.size) <= side:
        return image
    width, height = (min(length, side) for length in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
