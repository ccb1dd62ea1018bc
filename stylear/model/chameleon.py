"""The Chameleon family, the mini models too: a model directory to a model and back."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from stylear.errors import WeightsError
from stylear.model import lora
from stylear.model.layout import STYLE_PLACEHOLDER, TokenLayout
from stylear.model.resampler import Resampler, ResamplerConfig
from stylear.model.transformer import Decoder, DecoderConfig, expand_head_norms
from stylear.model.vq import FILES as VQ_FILES
from stylear.model.vq import VQModel
from stylear.weights import files as weights
from stylear.weights import names

if TYPE_CHECKING:
    from stylear.encoders.clip import ClipEncoder, Picture

PROMPT_TEMPLATE = (  # code
    "Instant style Generation. Given image style is {style}. "
    "Please generate an same style image according to my instruction: {prompt}"
)
CAPTION_TEMPLATE = (  # base
    "Generate an image of 768x768 according to the following prompt:\n{prompt}"
)
MINI_PROMPT_TEMPLATE, MINI_CAPTION_TEMPLATE = "{style} {prompt}", "{prompt}"  # ours
CONFIG, TOKENIZER, STYLE = "config.json", "tokenizer.json", "stylear.json"
DECODER, RESAMPLER = "model.safetensors", "resampler.safetensors"
DECODER_FILES = (DECODER, "pytorch_model.bin")  # the first is written
ROOTS = ("model.embed_tokens.", "model.layers.")  # of a decoder's tensors


@dataclass(frozen=True)
class StyleSettings:
    """stylear.json: the style part of a model, and what the model was made from.

    `base` is the lineage: {"model": name or path, "sha256": of its decoder weights}.
    """

    clip: str | None = None
    num_style_tokens: int = 0
    style_placeholder: str = STYLE_PLACEHOLDER
    resampler: ResamplerConfig | None = None
    prompt_template: str = PROMPT_TEMPLATE
    caption_template: str = CAPTION_TEMPLATE
    base: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> StyleSettings:
        unknown = sorted(set(found) - {f.name for f in fields(cls)})
        if unknown:
            raise WeightsError(f"{STYLE}: unknown setting {unknown[0]!r}")
        values = dict(found)
        if values.get("resampler") is not None:
            values["resampler"] = ResamplerConfig.from_dict(values["resampler"])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "base": dict(self.base)}


@dataclass
class StyleModel:
    """Everything that turns a prompt and a style reference into an image."""

    name: str
    decoder: Decoder
    vq: VQModel
    layout: TokenLayout
    settings: StyleSettings
    config: dict[str, Any]  # config.json as it stands on disk
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
        """Height and width in codes of the images the VQ model was made for."""
        side = self.vq.config.resolution // self.vq.config.factor
        return side, side

    def encode_prompt(self, caption: str, *, style: bool = True) -> list[int]:
        """Ids of a caption in the model's template, with or without places for style tokens."""
        if style and self.num_style_tokens:
            template = self.settings.prompt_template
            return self.layout.encode_prompt(caption, self.num_style_tokens, template)
        return self.layout.encode_prompt(caption, 0, self.settings.caption_template)

    @torch.no_grad()
    def style_features(self, images: Sequence[Picture]) -> Tensor:
        """Features (B, N, W) of style references, the resampler's input."""
        if self.clip is None:
            raise WeightsError(
                f"{self.name}: has no style encoder",
                hint="this is a base model; train it with style tokens first",
            )
        return self.clip.patch_features(self.clip.preprocess(images)).to(self.device)

    def eval(self) -> StyleModel:
        """Every part in evaluation mode."""
        for part in (self.decoder, self.vq, self.resampler):
            if part is not None:
                part.eval()
        return self


def load_model(
    path_or_name: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    with_clip: bool = True,
) -> StyleModel:
    """A model from a mini model's name or a model directory, in evaluation mode.

    The VQ model stays in fp32, so that codes do not depend on `dtype`. Raises WeightsError naming
    the file, key and shape when something is missing or belongs to another model.
    """
    directory = names.resolve(path_or_name)
    if not directory.is_dir():
        raise WeightsError(f"{path_or_name}: expected a model directory, found a file")
    path = directory / STYLE
    settings = (
        StyleSettings.from_dict(weights.read_json(path)) if path.exists() else StyleSettings()
    )
    if (directory / lora.CONFIG_FILE).is_file():
        model = _load_adapter(directory, settings, device, dtype)
    else:
        model = _load_full(directory, settings, device, dtype)
    if settings.resampler is not None:
        model.resampler = _load_resampler(directory, model, device, dtype)
    if settings.clip is not None and with_clip:
        from stylear.encoders.clip import ClipEncoder

        model.clip = ClipEncoder.open(settings.clip, device=device)
    return model.eval()


def _load_full(
    directory: Path, settings: StyleSettings, device: torch.device | str, dtype: torch.dtype
) -> StyleModel:
    raw = weights.read_json(directory / CONFIG)
    config = DecoderConfig.from_dict(raw)
    layout = TokenLayout.from_file(directory / TOKENIZER, settings.style_placeholder)
    top = max(layout.vocabulary.values())
    if top >= config.vocab_size:
        raise WeightsError(
            f"{directory}: vocab_size expected above the tokenizer's last id {top}, "
            f"found {config.vocab_size}"
        )
    vq = VQModel.from_pretrained(vq_directory(raw, directory), device).requires_grad_(False)
    if vq.config.num_embeddings != layout.num_codes:
        raise WeightsError(
            f"{directory}: expected as many VQ codes as image tokens, "
            f"found {vq.config.num_embeddings} and {layout.num_codes}"
        )
    file = decoder_file(directory)
    tensors = {
        name: value
        for name, value in weights.read_tensors(file, ROOTS).items()
        if not name.startswith("model.vqmodel.") and not name.endswith("rotary_emb.inv_freq")
    }
    with torch.device("meta"):
        decoder = Decoder(config, layout.image_token_ids)
    tensors = expand_head_norms(tensors, config)
    weights.load_into(decoder, tensors, what=str(file), dtype=dtype, device=device)
    decoder.to(device)
    return StyleModel(directory.name, decoder, vq, layout, settings, raw, source=directory)


def vq_directory(config: Mapping[str, Any], directory: Path) -> Path:
    """Where a model's VQ model lies: in its own directory, or in the one that `vq_model` names."""
    name = config.get("vq_model")
    return directory if name is None else names.resolve(str(name))


def decoder_file(directory: Path) -> Path:
    """The decoder weights of a full model directory: one file, or the index of several.

    Raises WeightsError when there is neither.
    """
    candidates = [
        directory / name for file in DECODER_FILES for name in (file, f"{file}.index.json")
    ]
    for file in candidates:
        if file.is_file():
            return file
    raise WeightsError(
        f"{directory}: expected {DECODER} or {DECODER}.index.json, found neither",
        hint="check that the path is a complete model directory",
    )


def hash_decoder(directory: Path) -> str:
    """SHA-256 of the decoder weights of a full model directory; of all shards where there are several."""
    return weights.hash_weights(decoder_file(directory))


def lineage(model: StyleModel) -> dict[str, Any]:
    """What a model made from this one records: its name or path and the hash of its decoder.

    A model with LoRA points to the base that its adapter needs.
    """
    if model.source is None:
        return {"model": model.name}
    if (model.source / lora.CONFIG_FILE).is_file():
        return dict(model.settings.base)
    name, sha256 = names.name_of(model.source), hash_decoder(model.source)
    return {"model": name, "sha256": sha256}


def _load_adapter(
    directory: Path, settings: StyleSettings, device: torch.device | str, dtype: torch.dtype
) -> StyleModel:
    base = settings.base.get("model")
    if not isinstance(base, str):
        raise WeightsError(f"{directory / STYLE}: expected `base.model`, found none")
    source = names.resolve(base)
    found, expected = hash_decoder(source), settings.base.get("sha256")
    if expected is not None and found != expected:
        raise WeightsError(
            f"{directory}: base decoder expected sha256 {expected}, found {found} in {source}",
            hint="restore the base model that this adapter was trained on",
        )
    model = _load_full(source, settings, device, dtype)
    lora.read_peft(model.decoder, directory)
    return replace(model, name=directory.name, source=directory)


def _load_resampler(
    directory: Path, model: StyleModel, device: torch.device | str, dtype: torch.dtype
) -> Resampler:
    settings = model.settings
    assert settings.resampler is not None
    for key, expected, found in (
        ("num_queries", settings.num_style_tokens, settings.resampler.num_queries),
        ("output_dim", model.decoder.config.hidden_size, settings.resampler.output_dim),
    ):
        if expected != found:
            raise WeightsError(f"{directory / STYLE}: {key} expected {expected}, found {found}")
    with torch.device("meta"):
        resampler = Resampler(settings.resampler)
    path = directory / RESAMPLER
    tensors = weights.read_tensors(path, ("latents",))
    weights.load_into(resampler, tensors, what=str(path), dtype=dtype, device=device)
    return resampler


def save_model(
    model: StyleModel, directory: str | Path, dtype: torch.dtype | None = torch.float16
) -> None:
    """Write a model directory, all of it or nothing; equal models give equal bytes.

    `dtype` is that of the floats on disk (None: as they are). A decoder with LoRA is written as an
    adapter, which needs the base model that `settings.base` names. Raises StorageError when the
    directory holds other things.
    """
    adapted = next(lora.lora_layers(model.decoder), None) is not None
    if adapted and "model" not in model.settings.base:
        raise ValueError(f"{model.name}: settings.base must name the base model of the adapter")
    with weights.fresh_directory(Path(directory)) as target:
        weights.write_json(target / CONFIG, model.config)
        weights.write_bytes(target / TOKENIZER, model.tokenizer.to_str(pretty=False).encode())
        weights.write_json(target / STYLE, model.settings.to_dict())
        if adapted:
            lora.write_peft(model.decoder, target, model.settings.base["model"], dtype)
        else:
            weights.write_tensors(target / DECODER, model.decoder.state_dict(), dtype=dtype)
            _write_vq(model, target, dtype)
        if model.resampler is not None:
            weights.write_tensors(target / RESAMPLER, model.resampler.state_dict(), dtype=dtype)


def _write_vq(model: StyleModel, target: Path, dtype: torch.dtype | None) -> None:
    if model.config.get("vq_model") is not None:
        return
    if model.source is not None:  # it is never trained here, so its file stays as it is
        for name in VQ_FILES:
            if (model.source / name).is_file():
                shutil.copyfile(model.source / name, target / name)
                return
    weights.write_tensors(target / VQ_FILES[0], model.vq.state_dict(), dtype=dtype)


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
    """Write a base model with fresh weights: no style tokens yet; returns it, loaded.

    `vq` is a VQ model, the directory of one, or the name of a packaged one, which the new model then
    points to instead of holding a copy. The decoder's vocab_size is the tokenizer's.
    """
    layout = TokenLayout(tokenizer)
    config = replace(config, vocab_size=max(layout.vocabulary.values()) + 1)
    decoder = Decoder(config, layout.image_token_ids)
    decoder.init_weights(seed)
    pointer: dict[str, str] = {}
    if not isinstance(vq, VQModel):
        found = names.resolve(vq)
        if found.parent == names.MINI_MODELS:
            pointer = {"vq_model": found.name}
        vq = VQModel.from_pretrained(found)
    raw = {**config.to_dict(), "vq_config": vq.config.to_dict(), **pointer}
    settings = StyleSettings(prompt_template=prompt_template, caption_template=caption_template)
    model = StyleModel(Path(directory).name, decoder, vq, layout, settings, raw)
    save_model(model, directory)
    return load_model(directory)


def add_style(
    model: StyleModel,
    clip: str,
    num_style_tokens: int = 16,  # code
    *,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> StyleModel:
    """The model with a style encoder and a fresh resampler; the decoder is shared, not copied.

    `sizes` are fields of ResamplerConfig; widths of features and decoder are filled in.
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
        base=lineage(model),
    )
    return replace(
        model,
        settings=settings,
        clip=encoder,
        resampler=resampler.to(device=weight.device, dtype=weight.dtype),
    )


RELEASED_LORA, RELEASED_RESAMPLER = "model.safetensors", "image_proj.pth"


def load_released(base: StyleModel, directory: str | Path, clip: str) -> StyleModel:
    """StyleAR's released weights on a plain base model: model.safetensors and image_proj.pth.

    The base's decoder gets the LoRA. Raises WeightsError when they belong to another base.
    """
    directory = Path(directory)
    path = directory / RELEASED_RESAMPLER
    tensors = weights.read_tensors(path, ("latents",))
    config = ResamplerConfig.infer(tensors, what=str(path))
    sizes = {name: value for name, value in config.to_dict().items() if name != "num_queries"}
    model = add_style(base, clip, config.num_queries, sizes=sizes)
    assert model.resampler is not None
    weight = base.decoder.model.norm.weight
    weights.load_into(
        model.resampler, tensors, what=str(path), dtype=weight.dtype, device=weight.device
    )
    lora.read_released(base.decoder, directory / RELEASED_LORA)
    return replace(model, name=directory.name).eval()


def save_released(model: StyleModel, directory: str | Path) -> None:
    """Write LoRA and resampler in the files of StyleAR's release, fp32."""
    if model.resampler is None:
        raise ValueError(f"{model.name}: has no resampler to write")
    directory = Path(directory)
    lora.write_released(model.decoder, directory / RELEASED_LORA, torch.float32)
    state = {k: v.detach().cpu().float() for k, v in model.resampler.state_dict().items()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    weights.write_bytes(directory / RELEASED_RESAMPLER, buffer.getvalue())
