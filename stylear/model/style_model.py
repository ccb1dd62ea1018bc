"""A style model in memory: decoder, VQ model, style encoder, resampler, and its style settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from stylear.errors import UsageError, WeightsError
from stylear.model.layout import TokenLayout
from stylear.model.resampler import Resampler, ResamplerConfig
from stylear.model.transformer import Decoder
from stylear.model.vq import VQModel
from stylear.weights import files as weights

if TYPE_CHECKING:
    from stylear.encoders.clip import ClipEncoder
    from stylear.encoders.preprocess import Picture

PROMPT_TEMPLATE = (  # released code
    "Instant style Generation. Given image style is {style}. "
    "Please generate an same style image according to my instruction: {prompt}"
)
CONTROL_TEMPLATE = (  # released code
    "Instant style Generation. Given image style is {style}. Please generate an image according to the "
    "provided image {image} and according to my instruction: {prompt}"
)
CAPTION_TEMPLATE = (  # Lumina-mGPT
    "Generate an image of 768x768 according to the following prompt:\n{prompt}"
)
STYLE_PLACEHOLDER = "S*"  # released code
STYLE, RESAMPLER = "stylear.json", "resampler.safetensors"  # files of settings and resampler


@dataclass(frozen=True)
class StyleSettings:
    """stylear.json: the settings of a model's style part, and its lineage.

    `base` is the lineage: {"model": name or path, "sha256": of its decoder weights}, and after training
    `corpora` and `training`.
    """

    clip: str | None = None
    num_style_tokens: int = 0
    style_placeholder: str = STYLE_PLACEHOLDER
    resampler: ResamplerConfig | None = None
    prompt_template: str = PROMPT_TEMPLATE
    caption_template: str = CAPTION_TEMPLATE
    control_template: str = CONTROL_TEMPLATE
    base: Mapping[str, Any] = field(default_factory=dict)

    def update(self, config: Mapping[str, Any]) -> StyleSettings:
        """These settings with the values of a stylear.json. Raises WeightsError for an unknown one."""
        unknown = sorted(set(config) - {f.name for f in fields(self)})
        if unknown:
            raise WeightsError(f"{STYLE}: unknown setting {unknown[0]!r}")
        values = dict(config)
        if values.get("resampler") is not None:
            values["resampler"] = ResamplerConfig.from_dict(values["resampler"])
        return replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "base": dict(self.base)}


def read_settings(directory: Path, defaults: StyleSettings) -> StyleSettings:
    """The settings of a model directory; the defaults where it has no stylear.json."""
    path = directory / STYLE
    return defaults.update(weights.read_json(path)) if path.exists() else defaults


@dataclass
class StyleModel:
    """Everything needed to turn a prompt and a style reference into an image."""

    name: str
    decoder: Decoder
    vq: VQModel
    layout: TokenLayout
    settings: StyleSettings
    config: dict[str, Any]  # the content of config.json
    clip: ClipEncoder | None = None
    resampler: Resampler | None = None
    source: Path | None = None  # the directory it was loaded from

    @property
    def tokenizer(self) -> Tokenizer:
        return self.layout.tokenizer

    @property
    def device(self) -> torch.device:
        return self.decoder.model.norm.weight.device

    @property
    def num_style_tokens(self) -> int:
        return self.settings.num_style_tokens

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width, in codes, of the images that the VQ model was trained on."""
        side = self.vq.config.resolution // self.vq.config.factor
        return side, side

    def encode_prompt(
        self, caption: str, *, style: bool = True, control: Tensor | None = None
    ) -> list[int]:
        """Ids of a caption in the model's template, with style token placeholders if `style` is set.

        `control` (h, w) are the image codes of a control image, which the prompt then holds. Raises
        UsageError for one without style tokens, for which the released code has no prompt.
        """
        if style and self.num_style_tokens:
            settings = self.settings
            template = settings.prompt_template if control is None else settings.control_template
            return self.layout.encode_prompt(caption, self.num_style_tokens, template, control)
        if control is not None:
            raise UsageError(
                f"{self.name}: expected a style reference with a control image, found none",
                hint="give --style or --reference",
            )
        return self.layout.encode_prompt(caption, 0, self.settings.caption_template)

    @torch.no_grad()
    def style_features(self, images: Sequence[Picture]) -> Tensor:
        """Features (B, N, W) of style references: the resampler's input.

        Raises WeightsError if the model has no style encoder.
        """
        if self.clip is None:
            raise WeightsError(
                f"{self.name}: has no style encoder",
                hint="this is a base model; train it with style tokens first",
            )
        return self.clip.patch_features(self.clip.preprocess(images)).to(self.device)

    def eval(self) -> StyleModel:
        """The model with every part in evaluation mode."""
        for part in (self.decoder, self.vq, self.resampler):
            if part is not None:
                part.eval()
        return self
