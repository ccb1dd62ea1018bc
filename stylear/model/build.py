"""New models: a base with random weights, or a base extended by a style encoder and a new resampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from stylear.errors import WeightsError
from stylear.model.decoder_config import DecoderConfig
from stylear.model.families.chameleon import FAMILY as CHAMELEON
from stylear.model.families.chameleon import ChameleonLayout
from stylear.model.lineage import describe_lineage
from stylear.model.open import load_model
from stylear.model.resampler import Resampler, ResamplerConfig
from stylear.model.save import save_model
from stylear.model.style_model import StyleModel, StyleSettings
from stylear.model.style_tokens import STYLE_TOKENS
from stylear.model.transformer import Decoder
from stylear.model.vq import VQModel
from stylear.weights import names

MINI_PROMPT_TEMPLATE, MINI_CAPTION_TEMPLATE = "{style} {prompt}", "{prompt}"  # ours


def new_model(
    directory: str | Path,
    tokenizer: Tokenizer,
    config: DecoderConfig,
    vq: VQModel | str | Path,
    *,
    seed: int = 0,
    prompt_template: str = MINI_PROMPT_TEMPLATE,
    caption_template: str = MINI_CAPTION_TEMPLATE,
) -> StyleModel:
    """Write a Chameleon base model with random weights and no style tokens; returns it, loaded.

    `vq` is a VQ model, the directory of one, or the name of a shipped one, which the new model then
    references instead of copying it. The decoder's vocab_size is that of the tokenizer.
    """
    layout = ChameleonLayout(tokenizer)
    config = replace(config, vocab_size=max(layout.vocabulary.values()) + 1)
    decoder = Decoder(config, layout.image_token_ids)
    decoder.init_weights(seed)
    pointer: dict[str, str] = {}
    if not isinstance(vq, VQModel):
        vq_path = names.resolve_model(vq)
        if vq_path.parent == names.MINI_MODELS:
            pointer = {"vq_model": vq_path.name}
        vq = VQModel.from_pretrained(vq_path)
    raw = {**CHAMELEON.describe_config(config, vq), **pointer}
    settings = StyleSettings(prompt_template=prompt_template, caption_template=caption_template)
    model = StyleModel(Path(directory).name, decoder, vq, layout, settings, raw)
    save_model(model, directory)
    return load_model(directory)


def attach_style_encoder(
    model: StyleModel,
    clip: str,
    num_style_tokens: int = STYLE_TOKENS,
    *,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> StyleModel:
    """The model extended by a style encoder and a new resampler; the decoder is shared, not copied.

    `sizes` are fields of ResamplerConfig; the widths of features and decoder are filled in. Raises
    WeightsError if the tokenizer has no placeholder for style tokens.
    """
    from stylear.encoders.clip import ClipEncoder

    if model.layout.style_placeholder is None:
        raise WeightsError(
            f"{model.name}: tokenizer: expected the token {model.settings.style_placeholder}, "
            "found none"
        )
    encoder = ClipEncoder.open(clip, device=model.device)
    hidden = model.decoder.config.hidden_size
    filled = {"dim": hidden, **(sizes or {})} | {
        "num_queries": num_style_tokens,
        "embedding_dim": encoder.feature_dim,
        "output_dim": hidden,
    }
    config = ResamplerConfig(**filled)
    resampler = Resampler(config)
    resampler.init_weights(seed)
    weight = model.decoder.model.norm.weight
    settings = replace(
        model.settings,
        clip=clip,
        num_style_tokens=num_style_tokens,
        resampler=config,
        base=describe_lineage(model),
    )
    return replace(
        model,
        settings=settings,
        clip=encoder,
        resampler=resampler.to(device=weight.device, dtype=weight.dtype),
    )
