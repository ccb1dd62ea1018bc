"""Segment the subject of an image, to remove it from a style reference.

Axes: H, W the picture in pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from stylear.encoders.preprocess import Picture, to_rgb
from stylear.errors import SourceError, UsageError, WeightsError
from stylear.weights.files import load_into, read_tensors
from stylear.weights.names import resolve_model

Mask = NDArray[np.bool_]

GRABCUT_MARGIN = 0.05  # our choice: the share of each side taken as background at first
SHAPE_TOLERANCE = 0.02  # our choice: rounding of a mask that was drawn at another size
GRABCUT_ROUNDS = 5  # our choice
SURE_IOU = 0.88  # segment_anything: pred_iou_thresh of its automatic mask generator
DECODER_HEADS = 8  # segment_anything: the same in every published SAM; not visible in the weights
ROOTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")  # of a SAM's tensors
_PROMPT = re.compile(r"^(?P<file>.+)@(?P<numbers>\d+(?:,\d+)+)$")


def subject_mask(image: Picture, method: str, device: torch.device | str = "cpu") -> Mask:
    """The subject of a picture as a bool mask (H, W), True on the subject; see `Segmenter`."""
    return subject_masks([image], method, device)[0]


def subject_masks(
    images: Sequence[Picture], method: str, device: torch.device | str = "cpu"
) -> list[Mask]:
    """The subject of each picture as a bool mask (H, W), True on the subject; see `Segmenter`."""
    return Segmenter(method, device)(images)


class Segmenter:
    """Finds the subject of images; a SAM is loaded once, on the first call.

    `method` is the path of a mask picture (white on the subject), `grabcut`, or `sam:MODEL` with a
    registered model (`sam:sam-vit-b`) or any segment-anything checkpoint. `sam:MODEL@X,Y` and
    `sam:MODEL@X0,Y0,X1,Y1` give a point on the subject or a box around it, in pixels; otherwise the
    largest central subject is taken.
    """

    def __init__(self, method: str, device: torch.device | str = "cpu") -> None:
        self.method, self.device = method, device
        self._predictor: Any = None

    def __call__(self, images: Sequence[Picture]) -> list[Mask]:
        """The subject of each picture as a bool mask (H, W), True on the subject.

        Raises UsageError, SourceError or WeightsError; SourceError when no subject is found.
        """
        pictures = [to_rgb(image) for image in images]
        kind, _, spec = self.method.partition(":")
        if self.method == "grabcut":
            masks = [_grabcut(picture) for picture in pictures]
        elif kind == "sam":
            masks = self._sam(pictures, spec)
        else:
            masks = [_read_mask(picture, Path(self.method)) for picture in pictures]
        if not all(mask.any() for mask in masks):
            raise SourceError(
                f"{self.method}: expected a subject in the picture, found none",
                hint="draw a mask picture (white on the subject) and give its path to --segment",
            )
        return masks

    def _sam(self, pictures: Sequence[Image.Image], spec: str) -> list[Mask]:
        from segment_anything import SamPredictor

        match = _PROMPT.match(spec)
        numbers = [int(n) for n in match["numbers"].split(",")] if match else []
        for picture in pictures:
            _check_prompt(spec, numbers, picture)
        if self._predictor is None:
            sam = load_sam(match["file"] if match else spec)
            self._predictor = SamPredictor(sam.to(self.device))
        masks = []
        for picture in pictures:
            self._predictor.set_image(np.asarray(picture))
            masks.append(
                _predict_from_prompt(self._predictor, numbers)
                if numbers
                else _predict_central(self._predictor, picture)
            )
        return masks


def _check_prompt(spec: str, numbers: Sequence[int], picture: Image.Image) -> None:
    if len(numbers) not in (0, 2, 4):
        raise UsageError(
            f"sam:{spec}: expected a point X,Y or a box X0,Y0,X1,Y1 after @, "
            f"found {len(numbers)} numbers"
        )
    width, height = picture.size
    inside = all(
        x < width and y < height for x, y in zip(numbers[:2:2], numbers[1:2:2], strict=True)
    )
    ordered = len(numbers) < 4 or (numbers[0] < numbers[2] and numbers[1] < numbers[3])
    if not inside or not ordered:
        raise UsageError(
            f"sam:{spec}: expected a point or a box (X0 < X1, Y0 < Y1) within {width}x{height} "
            f"pixels, found {','.join(map(str, numbers))}"
        )


def cut_out(image: Picture, mask: Mask) -> Image.Image:
    """The subject alone on white, our choice of background: its features are subtracted from the style.

    Raises UsageError if the mask has another size than the image.
    """
    pixels = np.asarray(to_rgb(image)).copy()
    if mask.shape != pixels.shape[:2]:
        height, width = pixels.shape[:2]
        raise UsageError(
            f"mask: expected one value for each pixel of its reference, ({height}, {width}), "
            f"found {mask.shape}",
            hint="resize the mask, or give the path of a mask picture, which is resized as needed",
        )
    pixels[~mask.astype(bool)] = 255
    return Image.fromarray(pixels)


def _read_mask(picture: Image.Image, path: Path) -> Mask:
    try:
        with Image.open(path) as stored:
            mask = _to_grey(stored)
    except FileNotFoundError:
        raise UsageError(
            f"{path}: expected a mask picture, `grabcut` or `sam:MODEL`, found nothing",
            hint="check the path of the mask",
        ) from None
    except (UnidentifiedImageError, OSError) as error:
        raise SourceError(f"{path}: expected a mask picture, found: {error}") from error
    if mask.size != picture.size:
        if abs(mask.width * picture.height / (mask.height * picture.width) - 1) > SHAPE_TOLERANCE:
            raise UsageError(
                f"{path}: expected a mask of the shape of its picture, "
                f"{picture.width}x{picture.height}, found {mask.width}x{mask.height}",
                hint="draw the mask over the picture itself; another size of the same shape is resized",
            )
        mask = mask.resize(picture.size, Image.Resampling.NEAREST)
    return np.asarray(mask) >= 128


def _to_grey(mask: Image.Image) -> Image.Image:
    """The grey levels of a mask, black where it is transparent."""
    if "A" in mask.getbands() or "transparency" in mask.info:
        layer = mask.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer).convert("L")
    return to_rgb(mask).convert("L")


def _grabcut(picture: Image.Image) -> Mask:
    import cv2

    width, height = picture.size
    inset_x, inset_y = (max(1, round(side * GRABCUT_MARGIN)) for side in (width, height))
    box = (inset_x, inset_y, width - 2 * inset_x, height - 2 * inset_y)
    if min(box) < 1:
        raise SourceError(f"expected a picture of at least 4x4 pixels, found {width}x{height}")
    labels = np.zeros((height, width), np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    pixels = np.ascontiguousarray(np.asarray(picture)[..., ::-1])
    cv2.grabCut(pixels, labels, box, *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_RECT)
    mask: Mask = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    return mask


def _predict_from_prompt(predictor: Any, numbers: Sequence[int]) -> Mask:
    """Predict the mask of a box, or the most confident of the three masks of a point."""
    if len(numbers) == 4:
        masks, _, _ = predictor.predict(box=np.array(numbers), multimask_output=False)
        return np.asarray(masks[0], dtype=bool)
    masks, sure, _ = predictor.predict(np.array([numbers]), np.array([1]))
    return np.asarray(masks[int(sure.argmax())], dtype=bool)


def _predict_central(predictor: Any, picture: Image.Image) -> Mask:
    """The largest confident mask at nine points of the central half that covers at most half the border."""
    width, height = picture.size
    grid = np.array([(x, y) for y in (0.3, 0.5, 0.7) for x in (0.3, 0.5, 0.7)])
    points = predictor.transform.apply_coords(grid * (width, height), (height, width))
    masks, sure, _ = predictor.predict_torch(
        torch.as_tensor(points, dtype=torch.float, device=predictor.device)[:, None],
        torch.ones(len(points), 1, dtype=torch.int, device=predictor.device),
    )
    flat, scores = masks.flatten(0, 1).cpu(), sure.flatten().cpu()
    edges = [flat[:, 0], flat[:, -1], flat[:, :, 0], flat[:, :, -1]]
    free = torch.cat(edges, dim=1).float().mean(dim=1) <= 0.5
    areas = flat.flatten(1).sum(dim=1)
    usable = free & (areas > 0)
    if not usable.any():
        return np.zeros((height, width), dtype=bool)
    best = scores[usable].max()
    certain = usable & (scores >= min(SURE_IOU, float(best)))
    choice = int(torch.where(certain, areas, -1).argmax())
    return np.asarray(flat[choice].numpy(), dtype=bool)


def load_sam(checkpoint: str | Path) -> Any:
    """A segment_anything Sam from a registered name or a checkpoint (.pth or .safetensors).

    vit_b, vit_l, vit_h and any other size load through this one path: sizes are read from the
    keys, and nothing but tensors is unpickled. Raises WeightsError if it is missing or not a SAM.
    """
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    path = resolve_model(checkpoint)
    tensors = read_tensors(path, ROOTS)
    try:
        sizes = _sam_sizes(tensors)
    except (KeyError, IndexError) as error:
        raise WeightsError(
            f"{path}: expected a segment-anything checkpoint, found no {error}",
            hint="use a SAM checkpoint such as sam_vit_b_01ec64.pth",
        ) from error
    grid, patch, width = sizes["grid"], sizes["patch"], sizes["prompt_width"]
    with torch.device("meta"):
        encoder = ImageEncoderViT(
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            img_size=grid * patch,
            patch_size=patch,
            qkv_bias=True,
            use_rel_pos=True,
            out_chans=width,
            **sizes["encoder"],
        )
    with torch.random.fork_rng(devices=[]):  # building draws random weights first
        prompt = PromptEncoder(width, (grid, grid), (grid * patch,) * 2, sizes["mask_channels"])
        transformer = TwoWayTransformer(
            depth=sizes["decoder_depth"],
            embedding_dim=width,
            mlp_dim=sizes["decoder_mlp"],
            num_heads=DECODER_HEADS,
        )
        decoder = MaskDecoder(transformer_dim=width, transformer=transformer, **sizes["decoder"])
    sam = Sam(encoder, prompt, decoder).eval().requires_grad_(False)
    load_into(sam, tensors, what=str(path))
    return sam


def _sam_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """All sizes of a SAM, read from the shapes of its weights."""
    positions = tensors["image_encoder.pos_embed"]  # (1, grid, grid, dim)
    grid, dim = positions.shape[1], positions.shape[3]
    depth = _count(tensors, r"image_encoder\.blocks\.(\d+)\.")
    relative = [tensors[f"image_encoder.blocks.{i}.attn.rel_pos_h"].shape for i in range(depth)]
    whole = [i for i, shape in enumerate(relative) if shape[0] == 2 * grid - 1]
    windows = [shape[0] for i, shape in enumerate(relative) if i not in whole]
    head = "mask_decoder.iou_prediction_head.layers."
    return {
        "grid": grid,
        "patch": tensors["image_encoder.patch_embed.proj.weight"].shape[-1],
        "prompt_width": tensors["image_encoder.neck.0.weight"].shape[0],
        "mask_channels": tensors["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        "encoder": {
            "depth": depth,
            "embed_dim": dim,
            "num_heads": dim // relative[0][1],
            "mlp_ratio": tensors["image_encoder.blocks.0.mlp.lin1.weight"].shape[0] / dim,
            "window_size": (windows[0] + 1) // 2 if windows else 0,
            "global_attn_indexes": whole,
        },
        "decoder_depth": _count(tensors, r"mask_decoder\.transformer\.layers\.(\d+)\."),
        "decoder_mlp": tensors["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
        "decoder": {
            "num_multimask_outputs": tensors["mask_decoder.mask_tokens.weight"].shape[0] - 1,
            "iou_head_depth": _count(tensors, re.escape(head) + r"(\d+)\."),
            "iou_head_hidden_dim": tensors[f"{head}0.weight"].shape[0],
        },
    }


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    numbers = [int(match[1]) for name in tensors if (match := re.match(pattern, name))]
    return max(numbers) + 1 if numbers else 0
