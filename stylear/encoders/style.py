"""Style: CSD, a CLIP vision tower tuned so that images of one style have similar embeddings.

Axes: B images, S image side in pixels, W tower width, D embedding size.
Source: Somepalli et al. 2024, "Measuring Style Similarity in Diffusion Models", and its code.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylear.encoders.preprocess import ImagePreprocessor, Picture
from stylear.errors import WeightsError
from stylear.weights.files import hash_path, load_into, read_tensors
from stylear.weights.formats import SAFETENSORS, require_weights, warn_wrong_ending
from stylear.weights.names import resolve_file
from stylear.weights.state_dict import find_state_dict, strip_wrappers

CHECKPOINT = "a CSD checkpoint"  # for errors
STATE = "model_state_dict"  # the key of the weights in a training checkpoint, beside its optimisers
ROOTS = ("backbone.", "last_layer_")  # of a CSD's tensors
HEAD_WIDTH = 64  # of all vision towers of OpenAI's CLIP; not in the weights
_BLOCK = re.compile(r"^backbone\.transformer\.resblocks\.(\d+)\.")


class CsdModel(nn.Module):
    """A CLIP vision tower without its projection, and two projections in its place."""

    def __init__(self, backbone: nn.Module, width: int, style_dim: int, content_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.last_layer_style = nn.Parameter(torch.empty(width, style_dim))
        self.last_layer_content = nn.Parameter(torch.empty(width, content_dim))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) to style and content (B, D), each of length one, float32."""
        features = self.backbone(pixels)  # (B, W)
        style, content = features @ self.last_layer_style, features @ self.last_layer_content
        return F.normalize(style.float(), dim=-1), F.normalize(content.float(), dim=-1)


class CsdEncoder:
    """A frozen CSD: images to unit vectors whose cosine is the similarity of their styles."""

    def __init__(self, name: str, weights: Path, model: CsdModel, image_size: int) -> None:
        import open_clip

        self.name = name
        self.weights_sha256 = hash_path(weights)
        self.model = model.eval().requires_grad_(False)
        self.image_size = image_size
        self.preprocessing = f"CSD: {image_size} px, shortest, bicubic, mean and std of CLIP"
        style = model.last_layer_style
        self.device, self.dtype = style.device, style.dtype
        transform = open_clip.image_transform(image_size, is_train=False)
        self.preprocessor = ImagePreprocessor.from_open_clip(transform, image_size, self.device)

    @classmethod
    def open(
        cls,
        checkpoint: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Open a published checkpoint (.pth, .bin or .safetensors); its shapes give the tower's size.

        Only the tensors of a training checkpoint are read: nothing else that its pickle names
        (optimisers, arguments) is imported or called.
        Raises WeightsError naming the first key that is missing, unknown or of another shape.
        """
        path = resolve_file(checkpoint, CHECKPOINT)
        tensors = read_csd(path)
        backbone, width, image_size = _build_tower(tensors, path)
        dims = [
            _read_shape(tensors, f"last_layer_{kind}", path)[-1] for kind in ("style", "content")
        ]
        with torch.device("meta"):
            model = CsdModel(backbone, width, *dims)
        load_into(model, tensors, what=str(path), dtype=dtype, device=device)
        return cls(path.name, path, model, image_size)

    def preprocess(self, images: Sequence[Picture]) -> Tensor:
        """Encoded or decoded images to pixels (B, 3, S, S) as in the published code.

        Raises SourceError for bytes that are not an image.
        """
        return self.preprocessor(images)

    @torch.no_grad()
    def embed_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) to style embeddings (B, D) of length one, float32."""
        style, _ = self.model(pixels.to(self.device, self.dtype))
        styles: Tensor = style
        return styles


def read_csd(path: Path) -> dict[str, Tensor]:
    """The tensors of a CSD checkpoint by the keys of `CsdModel`.

    Raises WeightsError when the file cannot be read.
    """
    if (known := require_weights(path)).kind == SAFETENSORS:
        return read_tensors(path, ROOTS)
    warn_wrong_ending(path, known)
    checkpoint = _read_inert(path)
    state = checkpoint.get(STATE, checkpoint)
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path}: {STATE}: expected named tensors, found {type(state).__name__}")
    return strip_wrappers(find_state_dict(state, str(path)), ROOTS)


class Inert:
    """A stand-in for every class and function that a pickle names; it accepts anything and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _read_inert(path: Path) -> dict[str, Any]:
    """Read a torch checkpoint; every object that is not a tensor becomes an `Inert`.

    The published file keeps its optimisers and an argparse.Namespace beside the weights, which
    weights_only refuses. Here each such name becomes `Inert` instead of being imported.
    """
    serialization = torch.serialization
    try:
        names = serialization.get_unsafe_globals_in_checkpoint(str(path))
        # given a stream, torch goes by content; given a path, by its ending, but it can map the file
        mapped = path.suffix != ".safetensors"
        inert = serialization.safe_globals([(Inert, name) for name in names])
        with inert, path.open("rb") as stream:
            source: Any = path if mapped else stream
            checkpoint = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise WeightsError(
            f"{path}: cannot be read: {_reason(error)}",
            hint="the file is corrupt, truncated or not a checkpoint; copy it again",
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise WeightsError(f"{path}: expected named tensors, found {type(checkpoint).__name__}")
    return dict(checkpoint)


def _reason(error: Exception) -> str:
    """Why torch could not read the file, without its advice to run the code in it."""
    inner = error.__context__ if isinstance(error, pickle.UnpicklingError) else None
    lines = str(inner or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _build_tower(tensors: Mapping[str, Tensor], path: Path) -> tuple[nn.Module, int, int]:
    """The vision tower of the weights (on the meta device), its width, its image side."""
    from open_clip.transformer import QuickGELU, VisionTransformer

    width, _, _, patch = _read_shape(tensors, "backbone.conv1.weight", path, 4)
    positions, _ = _read_shape(tensors, "backbone.positional_embedding", path, 2)
    blocks = {int(match[1]) for key in tensors if (match := _BLOCK.match(key))}
    if width % HEAD_WIDTH or not blocks:
        raise WeightsError(
            f"{path}: backbone: expected a tower of CLIP, its width a multiple of {HEAD_WIDTH},"
            f" found width {width} and {len(blocks)} blocks"
        )
    size = isqrt(max(0, positions - 1)) * patch
    with torch.device("meta"):
        tower: Any = VisionTransformer(
            image_size=size,
            patch_size=patch,
            width=width,
            layers=max(blocks) + 1,
            heads=width // HEAD_WIDTH,
            mlp_ratio=4.0,
            output_dim=width,
            act_layer=QuickGELU,
        )
    tower.proj = None
    return tower, width, size


def _read_shape(tensors: Mapping[str, Tensor], key: str, path: Path, dims: int = 2) -> list[int]:
    """The shape of a tensor. Raises WeightsError if it is missing or has other dimensions."""
    value = tensors.get(key)
    if value is None or value.ndim != dims:
        found = "nothing" if value is None else "x".join(map(str, value.shape)) or "a scalar"
        raise WeightsError(
            f"{path}: weights of another model: {key} expected {dims} dimensions, found {found}",
            hint="give a CSD checkpoint: its keys begin with backbone. and last_layer_",
        )
    return list(value.shape)
