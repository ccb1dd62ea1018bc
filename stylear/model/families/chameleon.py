"""Chameleon (arXiv 2405.09818) as Lumina-mGPT (arXiv 2408.02657) uses it; the mini models belong to it too.

A sequence is `<s>` prompt `<reserved08706>`, then the image: `<racm3:break>`, height and width in units of
two codes, rows of codes each ended by `<reserved08799>`, `<eoss>`. The unconditional sequence is the image
alone. Weights are transformers' for the decoder and Meta's vqgan.ckpt for the VQ model.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from stylear.errors import UsageError, WeightsError
from stylear.model.decoder_config import DecoderConfig, require_setting
from stylear.model.families.family import DECODER, Family
from stylear.model.layout import TokenLayout
from stylear.model.style_model import STYLE_PLACEHOLDER, StyleModel, StyleSettings
from stylear.model.transformer import Decoder, expand_head_norms
from stylear.model.vq import FILES as VQ_FILES
from stylear.model.vq import VQModel
from stylear.weights import files as weights
from stylear.weights import names

BOS, PAD, EOS, UNK = "<s>", "<pad>", "</s>", "<unk>"
IMAGE_START, IMAGE_END = "<racm3:break>", "<eoss>"
SEPARATOR, NEWLINE = "<reserved08706>", "<reserved08799>"
SIZE_BASE = 8800  # `<reserved08800 + n>` says a side of n units
CODES_PER_UNIT = 2
_DIGITS = str.maketrans("ABCDEFGHIJ", "0123456789")
_LETTERS = str.maketrans("0123456789", "ABCDEFGHIJ")
_CODE_NAME = re.compile(r"IMGIMG([A-J]+)Z")
_SPECIAL = re.compile(r"<(?=/?[a-z|]+[0-9]*[:a-z|]*>)|IMGIMG(?=[A-J]+Z)")


def code_name(code: int) -> str:
    """The token of an image code: 137 is IMGIMGBDHZ."""
    return f"IMGIMG{str(code).translate(_LETTERS)}Z"


def size_name(units: int) -> str:
    """The token of a side of `units` times two codes."""
    return f"<reserved{SIZE_BASE + units:05d}>"


class ChameleonLayout(TokenLayout):
    """Ids by the names of Chameleon's vocabulary; codes go through the names IMGIMG..., as published."""

    style_joiner = " "
    newline: int

    def __init__(self, tokenizer: Tokenizer, style_placeholder: str = STYLE_PLACEHOLDER) -> None:
        codes = {
            int(match[1].translate(_DIGITS)): id
            for name, id in tokenizer.get_vocab(with_added_tokens=True).items()
            if (match := _CODE_NAME.fullmatch(name))
        }
        if not codes or sorted(codes) != list(range(len(codes))):
            raise WeightsError(
                f"tokenizer: expected names IMGIMGAZ... of codes 0 to n, found {len(codes)} names",
                hint="use the tokenizer.json that was published with the model",
            )
        super().__init__(tokenizer, [codes[code] for code in range(len(codes))], style_placeholder)
        self.bos, self.pad, self.sep = map(self.find_id, (BOS, PAD, SEPARATOR))
        self.newline = self.find_id(NEWLINE)
        self.image_start, self.image_end = self.find_id(IMAGE_START), self.find_id(IMAGE_END)
        self.prompt_start, self.prompt_end = (self.bos,), (self.sep,)

    def size_token(self, units: int) -> int:
        """The id of the token for a side of `units` times two codes."""
        return self.find_id(size_name(units))

    def prefix(self, height: int, width: int) -> list[int]:
        """Image start, height, width. Raises ValueError for sides that are not pairs of codes."""
        for side in (height, width):
            if side <= 0 or side % CODES_PER_UNIT:
                raise ValueError(f"codes: sides must be even, got {height} x {width}")
        sizes = [self.size_token(side // CODES_PER_UNIT) for side in (height, width)]
        return [self.image_start, *sizes]

    def null_prompt(self, prompt: Sequence[int]) -> list[int]:
        """Nothing: the unconditional sequence starts at the image start token, as in the released code."""
        return []

    def escape_caption(self, caption: str) -> str:
        head, tail = self._style_name[:1], self._style_name[1:]
        caption = caption.replace(self._style_name, f"{head} {tail}")
        return _SPECIAL.sub(lambda match: f"{match[0]} ", caption)

    def compute_grid(self, height_px: int, width_px: int, factor: int) -> tuple[int, int]:
        unit = CODES_PER_UNIT * factor
        for side in (height_px, width_px):
            if side < unit or side % unit:
                raise UsageError(f"size: expected a multiple of {unit} pixels, found {side}")
            if size_name(side // unit) not in self.vocabulary:
                raise UsageError(
                    f"size: expected a side that the model's vocabulary has a token for, found {side}"
                    f" pixels ({size_name(side // unit)})",
                    hint=f"the nearest it has: {self._describe_nearest_sides(side // unit, unit)}",
                )
        return height_px // factor, width_px // factor

    def _describe_nearest_sides(self, units: int, unit_px: int) -> str:
        known = [n for n in range(1, 2 * units + 200) if size_name(n) in self.vocabulary]
        nearest = sorted(sorted(known, key=lambda n: abs(n - units))[:3])
        return ", ".join(str(n * unit_px) for n in nearest) + " pixels" if nearest else "none"


class Chameleon(Family):
    model_type = "chameleon"
    settings = StyleSettings()
    roots = ("model.embed_tokens.", "model.layers.")
    unused = ("model.vqmodel.",)

    def read_config(self, config: Mapping[str, Any]) -> DecoderConfig:
        require_setting("tie_word_embeddings", False, config.get("tie_word_embeddings", False))
        return DecoderConfig.from_dict(config)

    def describe_config(self, config: DecoderConfig, vq: VQModel) -> dict[str, Any]:
        """The config.json of a new model, which transformers reads too."""
        head = {"model_type": self.model_type, "tie_word_embeddings": False}
        return {**head, **config.to_dict(), "vq_config": vq.config.to_dict()}

    def build_layout(
        self, tokenizer: Tokenizer, config: Mapping[str, Any], style_placeholder: str
    ) -> ChameleonLayout:
        return ChameleonLayout(tokenizer, style_placeholder)

    def build_decoder(self, config: Mapping[str, Any], layout: TokenLayout) -> Decoder:
        return Decoder(self.read_config(config), layout.image_token_ids)

    def select_decoder_tensors(
        self, tensors: Mapping[str, Tensor], decoder: Decoder
    ) -> dict[str, Tensor]:
        kept = super().select_decoder_tensors(tensors, decoder)
        kept = {name: v for name, v in kept.items() if not name.endswith("rotary_emb.inv_freq")}
        return expand_head_norms(kept, decoder.config)

    def load_vq(
        self,
        directory: Path,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        device: torch.device | str,
    ) -> VQModel:
        name = config.get("vq_model")
        source = directory if name is None else names.resolve_model(str(name))
        vq = VQModel.from_pretrained(source, device)
        if name is not None:
            self._require_same_vq(config, vq, directory)
        return vq

    @staticmethod
    def _require_same_vq(config: Mapping[str, Any], vq: VQModel, directory: Path) -> None:
        """Raise WeightsError when the VQ model that a model points to is not the one it was trained with."""
        recorded = config.get("vq_config")
        now = vq.config.to_dict()
        for key, value in recorded.items() if isinstance(recorded, Mapping) else ():
            if key in now and now[key] != value:
                raise WeightsError(
                    f"{directory}: was trained with another {config['vq_model']}: {key} expected "
                    f"{value!r}, found {now[key]!r}",
                    hint="the embedded models have changed since; train it again from the current ones",
                )

    def write_weights(self, model: StyleModel, directory: Path, dtype: torch.dtype | None) -> None:
        weights.write_tensors(directory / DECODER, model.decoder.state_dict(), dtype=dtype)
        if model.config.get("vq_model") is not None:
            return
        if model.source is not None:  # it is never trained here, so its file stays as it is
            for name in VQ_FILES:
                if (model.source / name).is_file():
                    shutil.copyfile(model.source / name, directory / name)
                    return
        weights.write_tensors(directory / VQ_FILES[0], model.vq.state_dict(), dtype=dtype)


FAMILY = Chameleon()
