"""Style tokens of references: of one picture, or of several that are averaged with weights.

K style tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stylear.encoders.preprocess import Picture, to_rgb
from stylear.encoders.segment import Mask, cut_out
from stylear.errors import UsageError
from stylear.model.style_tokens import REMOVAL, remove_subject

if TYPE_CHECKING:
    from stylear.model.style_model import StyleModel


@dataclass(frozen=True, slots=True, eq=False)
class StyleBlend:
    """Several references that make one style: the weighted average of their style tokens.

    `weights` are positive and equal by default; only their ratios matter. `masks` are those of the pictures,
    bool (H, W), True on the subject whose content is removed. Raises UsageError if the numbers of pictures,
    weights and masks differ.
    """

    pictures: Sequence[Picture]
    weights: Sequence[float] | None = None
    masks: Sequence[Mask | None] | None = None

    def __post_init__(self) -> None:
        if not self.pictures:
            raise UsageError("references: expected at least one picture of a style, found none")
        for name, values in (("weights", self.weights), ("masks", self.masks)):
            if values is not None and len(values) != len(self.pictures):
                raise UsageError(
                    f"{name}: expected one for each of {len(self.pictures)} references, "
                    f"found {len(values)}"
                )
        for weight in self.weights or ():
            check_weight(weight)


Style = Picture | StyleBlend


def check_weight(weight: float) -> float:
    """The weight of a reference. Raises UsageError unless it is a positive number."""
    if not (isfinite(weight) and weight > 0):
        raise UsageError(f"weight of a reference: expected a number above 0, found {weight:g}")
    return weight


@torch.inference_mode()
def encode_styles(
    model: StyleModel,
    references: Sequence[Style | None],
    masks: Sequence[Mask | None],
    removal: float = REMOVAL,
) -> list[Tensor | None]:
    """Style tokens (K, D) of each reference, without its subject if there is a mask.

    A reference that occurs several times is encoded once. Raises UsageError if the model has no style tokens,
    or if a mask has another size than its reference.
    """
    if all(reference is None for reference in references):
        return [None] * len(references)
    if model.resampler is None or model.clip is None:
        raise UsageError(
            f"{model.name}: expected a model with style tokens, found a plain text-to-image model",
            hint="train it with `stylear train sft`, or leave --style out",
        )
    ready: dict[tuple[int, int], Tensor] = {}
    tokens: list[Tensor | None] = []
    for reference, mask in zip(references, masks, strict=True):
        if reference is None:
            tokens.append(None)
            continue
        key = (id(reference), id(mask))
        if key not in ready:
            ready[key] = _encode_style(model, reference, mask, removal)
        tokens.append(ready[key])
    return tokens


def _encode_style(model: StyleModel, style: Style, mask: Mask | None, removal: float) -> Tensor:
    if not isinstance(style, StyleBlend):
        return _encode_reference(model, style, mask, removal)
    if mask is not None:
        raise UsageError("masks: expected those of a StyleBlend within it, found one beside it")
    masks = style.masks or [None] * len(style.pictures)
    parts = [
        _encode_reference(model, picture, part, removal)
        for picture, part in zip(style.pictures, masks, strict=True)
    ]
    weights = torch.tensor(style.weights or [1.0] * len(parts), device=parts[0].device)
    average = torch.einsum("n,nkd->kd", weights / weights.sum(), torch.stack(parts).float())
    return average.to(parts[0].dtype)


def _encode_reference(
    model: StyleModel, reference: Picture, mask: Mask | None, removal: float
) -> Tensor:
    assert model.resampler is not None
    picture = to_rgb(reference)
    views = [picture] if mask is None else [picture, cut_out(picture, mask)]
    features = model.style_features(views).to(next(model.resampler.parameters()))
    if mask is None:
        plain: Tensor = model.resampler(features)[0]
        return plain
    return remove_subject(features[:1], features[1:], model.resampler, removal)[0]
