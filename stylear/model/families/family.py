"""The interface of a family: everything that loading, training and sampling need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from stylear.errors import WeightsError
from stylear.model.decoder_config import DecoderConfig
from stylear.model.layout import TokenLayout
from stylear.model.style_model import StyleModel, StyleSettings
from stylear.model.transformer import Decoder
from stylear.model.vq import VQModel

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
DECODER = "model.safetensors"
DECODER_FILES = (DECODER, "pytorch_model.bin")  # the first is written


class Family(ABC):
    """A family of models. One instance serves all its models; it holds no weights.

    `settings` are those of a checkpoint without a stylear.json; `roots` are the prefixes of names in its
    weights file; `unused` are prefixes of names that belong to other parts or are not needed.
    """

    model_type: str  # of config.json
    settings: StyleSettings
    roots: tuple[str, ...]
    unused: tuple[str, ...] = ()

    def require(self, config: Mapping[str, Any], directory: Path) -> None:
        """Raise WeightsError if a config.json is of another family."""
        found = config.get("model_type")
        if found != self.model_type:
            raise WeightsError(
                f"{directory / CONFIG}: model_type expected {self.model_type!r}, found {found!r}",
                hint=f"name a model of the {self.model_type.capitalize()} family",
            )

    @abstractmethod
    def read_config(self, config: Mapping[str, Any]) -> DecoderConfig:
        """The decoder's sizes in a config.json. Raises WeightsError for what this family is not."""

    @abstractmethod
    def build_layout(
        self, tokenizer: Tokenizer, config: Mapping[str, Any], style_placeholder: str
    ) -> TokenLayout:
        """The token layout of a checkpoint. Raises WeightsError if the tokenizer lacks a token of it."""

    @abstractmethod
    def build_decoder(self, config: Mapping[str, Any], layout: TokenLayout) -> Decoder:
        """The decoder of a checkpoint with weights yet to be loaded."""

    @abstractmethod
    def load_vq(
        self,
        directory: Path,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        device: torch.device | str,
    ) -> VQModel:
        """The VQ model in float32, from a file of its own or from the checkpoint's `tensors`."""

    @abstractmethod
    def write_weights(self, model: StyleModel, directory: Path, dtype: torch.dtype | None) -> None:
        """Write the weights of decoder and VQ model as `load_vq` and the loader read them."""

    def select_decoder_tensors(
        self, tensors: Mapping[str, Tensor], decoder: Decoder
    ) -> dict[str, Tensor]:
        """The decoder's among some tensors of a checkpoint, by the names of its modules."""
        return {
            decoder.module_name(name): value
            for name, value in tensors.items()
            if not name.startswith(self.unused)
        }
