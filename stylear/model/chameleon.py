"""The Chameleon family, which includes the mini models: read and write a model directory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stylear.errors import WeightsError
from stylear.model import lora
from stylear.model.decoder_config import DecoderConfig
from stylear.model.layout import TokenLayout
from stylear.model.resampler import Resampler
from stylear.model.style_model import STYLE, StyleModel, StyleSettings
from stylear.model.transformer import Decoder, expand_head_norms
from stylear.model.vq import FILES as VQ_FILES
from stylear.model.vq import VQModel
from stylear.weights import files as weights
from stylear.weights import names

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
DECODER, RESAMPLER = "model.safetensors", "resampler.safetensors"
DECODER_FILES = (DECODER, "pytorch_model.bin")  # the first is written
ROOTS = ("model.embed_tokens.", "model.layers.")  # of a decoder's tensors


def load_model(
    path_or_name: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    with_clip: bool = True,
) -> StyleModel:
    """Load a model by the name of a mini or fetched model or by its directory, in evaluation mode.

    The VQ model stays in float32, so that codes do not depend on `dtype`. Raises WeightsError naming the
    file, key and shape if something is missing or belongs to another model.
    """
    directory = names.resolve_model(path_or_name)
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
    vq = VQModel.from_pretrained(find_vq_directory(raw, directory), device).requires_grad_(False)
    require_same_tokenizer(raw, vq, directory)
    if vq.config.num_embeddings != layout.num_codes:
        raise WeightsError(
            f"{directory}: expected as many VQ codes as image tokens, "
            f"found {vq.config.num_embeddings} and {layout.num_codes}"
        )
    file = find_decoder_file(directory)
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


def require_same_tokenizer(config: Mapping[str, Any], vq: VQModel, directory: Path) -> None:
    """Raise WeightsError when the VQ model that a model points to is not the one it was trained with."""
    recorded = config.get("vq_config")
    if config.get("vq_model") is None or not isinstance(recorded, Mapping):
        return
    now = vq.config.to_dict()
    for key, value in recorded.items():
        if key in now and now[key] != value:
            raise WeightsError(
                f"{directory}: was trained with another {config['vq_model']}: {key} expected {value!r},"
                f" found {now[key]!r}",
                hint="the embedded models have changed since; train it again from the present ones",
            )


def find_vq_directory(config: Mapping[str, Any], directory: Path) -> Path:
    """The directory of a model's VQ model: its own, or that of the model named by `vq_model`."""
    name = config.get("vq_model")
    return directory if name is None else names.resolve_model(str(name))


def find_decoder_file(directory: Path) -> Path:
    """The decoder weights of a full model directory: a single file or the index of several shards.

    Raises WeightsError if there is neither.
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
    """SHA-256 of the decoder weights of a full model directory, over all shards if there are several."""
    return weights.hash_weights(find_decoder_file(directory))


def describe_lineage(model: StyleModel) -> dict[str, Any]:
    """The lineage that a model derived from this one records: name or path, and the decoder's SHA-256.

    For a model with LoRA it is the base that its adapter needs.
    """
    if model.source is None:
        return {"model": model.name}
    if (model.source / lora.CONFIG_FILE).is_file():
        return dict(model.settings.base)
    name, sha256 = names.find_model_name(model.source), hash_decoder(model.source)
    return {"model": name, "sha256": sha256}


def _load_adapter(
    directory: Path, settings: StyleSettings, device: torch.device | str, dtype: torch.dtype
) -> StyleModel:
    base = settings.base.get("model")
    if not isinstance(base, str):
        raise WeightsError(f"{directory / STYLE}: expected `base.model`, found none")
    source = names.resolve_model(base)
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
    """Write a model directory atomically; equal models give equal bytes.

    `dtype` is the dtype of floats on disk (None: unchanged). A decoder with LoRA is written as an adapter,
    which needs the base model named in `settings.base`. Raises StorageError if the directory exists and is
    not a model directory.
    """
    adapted = next(lora.lora_layers(model.decoder), None) is not None
    if adapted and "model" not in model.settings.base:
        raise ValueError(f"{model.name}: settings.base must name the base model of the adapter")
    with weights.replace_directory(Path(directory)) as target:
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
