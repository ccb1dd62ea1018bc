"""Janus-Pro (arXiv 2501.17811) in transformers' format: a Llama decoder with a head over codes of its own.

A sequence is the begin-of-sentence token, a chat prompt, `<begin_of_image>`, the codes row by row without
newlines, `<end_of_image>`. Codes have no ids in the vocabulary: here they follow its last id. Guidance is set
against a prompt of padding of the same length, as in the published code. The encoder with which Janus
looks at pictures, and its text head, are not loaded: they take no part in drawing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from stylear.errors import UsageError, WeightsError
from stylear.model.decoder_config import DecoderConfig, require_setting, require_types
from stylear.model.decoder_layers import Head
from stylear.model.families.family import CONFIG, DECODER, Family
from stylear.model.layout import TokenLayout
from stylear.model.style_model import StyleModel, StyleSettings
from stylear.model.transformer import Decoder
from stylear.model.vq import VQConfig, VQModel
from stylear.weights import files as weights

BOS, PAD = "<｜begin▁of▁sentence｜>", "<｜▁pad▁｜>"
IMAGE_START, IMAGE_END = "<begin_of_image>", "<end_of_image>"
PLACEHOLDER = "<image_placeholder>"  # of pictures to look at: a prompt for drawing has none
CAPTION_TEMPLATE = "<|User|>: {prompt}\n\n<|Assistant|>:"  # published code
PROMPT_TEMPLATE = (  # our choice: StyleAR's sentence as a turn of Janus
    "<|User|>: Given image style is {style}. "
    "Please generate an same style image according to my instruction: {prompt}\n\n<|Assistant|>:"
)
CONTROL_TEMPLATE = (  # likewise; no Janus was trained with a picture within the prompt
    "<|User|>: Given image style is {style}. Please generate an image according to the provided image "
    "{image} and according to my instruction: {prompt}\n\n<|Assistant|>:"
)
VQ_PREFIX = "model.vqmodel."
LLAMA = {  # transformers leaves out of a config.json what equals these
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
}
VISION = {"image_size": 384, "patch_size": 16}  # likewise of JanusVisionConfig
VQ = {  # likewise of JanusVQVAEConfig
    "embed_dim": 8,
    "num_embeddings": 16384,
    "latent_channels": 256,
    "in_channels": 3,
    "out_channels": 3,
    "base_channels": 128,
    "channel_multiplier": (1, 1, 2, 2, 4),
    "num_res_blocks": 2,
    "dropout": 0.0,
    "projection_dim": 2048,
    "num_hidden_layers": 2,
    "hidden_act": "gelu",
    "image_token_embed_dim": 2048,
}


class JanusLayout(TokenLayout):
    """Ids by the names of DeepSeek's vocabulary; code c has the id `vocab_size` + c. The grid is fixed."""

    def __init__(
        self, tokenizer: Tokenizer, vocab_size: int, num_codes: int, side: int, placeholder: str
    ) -> None:
        super().__init__(tokenizer, range(vocab_size, vocab_size + num_codes), placeholder)
        self.bos, self.pad = self.find_id(BOS), self.find_id(PAD)
        self.image_start, self.image_end = self.find_id(IMAGE_START), self.find_id(IMAGE_END)
        self.prompt_start = (self.bos,)
        self.side = side
        added = {str(token.content) for token in tokenizer.get_added_tokens_decoder().values()}
        special = {name for name in added if len(name) > 1} | {BOS, PAD, IMAGE_START, IMAGE_END}
        longest_first = sorted(special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)))

    def prefix(self, height: int, width: int) -> list[int]:
        """Image start. Raises ValueError for another grid than the model's."""
        if (height, width) != (self.side, self.side):
            raise ValueError(f"codes: expected {self.side} x {self.side}, got {height} x {width}")
        return [self.image_start]

    def null_prompt(self, prompt: Sequence[int]) -> list[int]:
        """The begin-of-sentence token and padding, as long as the prompt."""
        return [self.bos, *[self.pad] * max(0, len(prompt) - 1)]

    def escape_caption(self, caption: str) -> str:
        return self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", caption)

    def compute_grid(self, height_px: int, width_px: int, factor: int) -> tuple[int, int]:
        own = self.side * factor
        if (height_px, width_px) != (own, own):
            side = height_px if height_px == width_px else f"{height_px} x {width_px}"
            raise UsageError(
                f"size: expected {own} pixels, the only size of Janus ({self.side} x {self.side} codes), "
                f"found {side}",
                hint="leave the size out",
            )
        return self.side, self.side


class Aligner(nn.Module):
    """Embeddings of codes to the decoder's width."""

    def __init__(self, size: int, width: int, layers: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, width)
        self.hidden_layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        for layer in self.hidden_layers:
            x = layer(nn.functional.gelu(x))
        return x


class GenerationHead(nn.Module):
    """Hidden states to logits of codes."""

    def __init__(self, hidden: int, width: int, num_codes: int) -> None:
        super().__init__()
        self.proj_out = nn.Linear(hidden, width)
        self.vision_head = Head(width, num_codes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.vision_head(nn.functional.gelu(self.proj_out(x)))
        return out


class JanusDecoder(Decoder):
    """A Llama decoder that embeds codes through an aligner and predicts them with a head of two layers."""

    lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "vision_head")
    checkpoint_prefixes = (
        ("model.", "model.language_model."),
        ("generation_", "model.generation_"),
    )

    def __init__(self, config: DecoderConfig, vq: Mapping[str, Any]) -> None:
        super().__init__(config, ())
        size, width, codes = vq["embed_dim"], vq["projection_dim"], vq["num_embeddings"]
        self.generation_embeddings = nn.Embedding(codes, size)
        self.generation_aligner = Aligner(size, width, vq["num_hidden_layers"])
        self.generation_head = GenerationHead(config.hidden_size, width, codes)

    def add_head(self, image_ids: Sequence[int]) -> None:
        """None: the text head takes no part, and the head over codes has a width of its own."""

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (B, T, D) of ids (B, T); ids from vocab_size on are codes."""
        codes = ids - self.config.vocab_size
        text = self.model.embed_tokens(ids.clamp(max=self.config.vocab_size - 1))
        drawn = self.generation_aligner(self.generation_embeddings(codes.clamp(min=0)))
        return torch.where((codes >= 0)[..., None], drawn, text)

    def image_logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) over the codes of hidden states (..., D)."""
        out: Tensor = self.generation_head(hidden)
        return out


class Janus(Family):
    model_type = "janus"
    settings = StyleSettings(
        style_placeholder=PLACEHOLDER,
        prompt_template=PROMPT_TEMPLATE,
        caption_template=CAPTION_TEMPLATE,
        control_template=CONTROL_TEMPLATE,
    )
    roots = ("model.language_model.", "model.generation_")
    unused = (VQ_PREFIX, "model.vision_model.", "model.aligner.", "lm_head.")

    def read_config(self, config: Mapping[str, Any]) -> DecoderConfig:
        text = read_part(config, "text_config")
        require_setting("text_config: model_type", "llama", text.get("model_type", "llama"))
        decoder = DecoderConfig.from_dict({**LLAMA, **text, "qk_norm": False})
        vq = self._read_vq(config)
        for key in ("projection_dim", "image_token_embed_dim"):
            # the aligner's output is the decoder's input, the head's input its output
            require_setting(f"vq_config: {key}", decoder.hidden_size, vq[key])
        return decoder

    def build_layout(
        self, tokenizer: Tokenizer, config: Mapping[str, Any], style_placeholder: str
    ) -> JanusLayout:
        sizes, vq = self.read_config(config), self.read_vq_config(config)
        side = vq.resolution // vq.factor
        return JanusLayout(tokenizer, sizes.vocab_size, vq.num_embeddings, side, style_placeholder)

    def build_decoder(self, config: Mapping[str, Any], layout: TokenLayout) -> JanusDecoder:
        return JanusDecoder(self.read_config(config), self._read_vq(config))

    @staticmethod
    def _read_vq(config: Mapping[str, Any]) -> dict[str, Any]:
        """`vq_config` with transformers' defaults. Raises WeightsError for what this VQ model is not."""
        vq = {**VQ, **read_part(config, "vq_config")}
        require_types(vq, VQ, "vq_config: ")
        for key, expected in (
            ("double_latent", False),
            ("hidden_act", "gelu"),
            ("out_channels", vq["in_channels"]),
        ):
            require_setting(f"vq_config: {key}", expected, vq.get(key, expected))
        return vq

    def read_vq_config(self, config: Mapping[str, Any]) -> VQConfig:
        """The VQ model's sizes in a config.json."""
        vq = self._read_vq(config)
        vision = {**VISION, **read_part({"vision_config": {}, **config}, "vision_config")}
        require_types(vision, VISION, "vision_config: ")
        # a picture to draw has as many codes as a picture to look at has patches
        side = vision["image_size"] // vision["patch_size"]
        factor = 2 ** (len(vq["channel_multiplier"]) - 1)
        known = ("embed_dim", "num_embeddings", "in_channels", "base_channels", "num_res_blocks")
        return VQConfig(
            **{key: vq[key] for key in known},
            channel_multiplier=tuple(vq["channel_multiplier"]),
            z_channels=vq["latent_channels"],
            dropout=vq["dropout"],
            resolution=side * factor,
            attn_resolutions=(side,),
            unit_codes=True,
        )

    def load_vq(
        self,
        directory: Path,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        device: torch.device | str,
    ) -> VQModel:
        settings = self.read_vq_config(config)
        with torch.device("meta"):
            vq = VQModel(settings)
        own = {
            turn_levels(name.removeprefix(VQ_PREFIX), settings): tensors[name]
            for name in tensors
            if name.startswith(VQ_PREFIX)
        }
        weights.load_into(vq, own, what=f"{directory}: VQ model", device=device)
        return vq.eval()

    def write_weights(self, model: StyleModel, directory: Path, dtype: torch.dtype | None) -> None:
        """Write one file in transformers' names; the VQ model stays in float32, so that no code changes."""
        decoder = model.decoder
        tensors = {
            decoder.checkpoint_name(name): value if dtype is None else value.to(dtype)
            for name, value in decoder.state_dict().items()
        }
        tensors |= {
            VQ_PREFIX + turn_levels(name, model.vq.config): value
            for name, value in model.vq.state_dict().items()
        }
        weights.write_tensors(directory / DECODER, tensors)


def read_part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a config.json. Raises WeightsError if it is missing."""
    part = config.get(name)
    if not isinstance(part, Mapping):
        raise WeightsError(
            f"{CONFIG}: expected `{name}` with the settings of that part of Janus, found {part!r}",
            hint="use the config.json that was published with the weights",
        )
    return part


def turn_levels(name: str, config: VQConfig) -> str:
    """The name of a VQ tensor with the decoder's levels counted from the other end.

    transformers' Janus counts them in the order in which they run, taming-transformers by resolution.
    """
    start, dot, path = name.partition("decoder.up.")
    if start or not dot:
        return name
    level, _, path = path.partition(".")
    last = len(config.channel_multiplier) - 1
    return f"decoder.up.{last - int(level)}.{path}" if level.isdecimal() else name


FAMILY = Janus()
