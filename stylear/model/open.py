"""Open a model by name: a mini model, a model directory, or a finished training run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stylear.device import pick_device
from stylear.errors import UsageError, WeightsError
from stylear.model import lora
from stylear.model.families.family import CONFIG, TOKENIZER
from stylear.model.families.registry import find_family
from stylear.model.fuse import fuse_decoder
from stylear.model.int8 import quantize_decoder
from stylear.model.layout import read_tokenizer
from stylear.model.lineage import find_decoder_file, hash_decoder
from stylear.model.resampler import Resampler
from stylear.model.style_model import RESAMPLER, STYLE, StyleModel, read_settings
from stylear.weights import files as weights
from stylear.weights import names
from stylear.weights.stream import open_tensors, stream_into

FINAL = "final"  # the finished model of a training run


def find_model(name: str) -> Path:
    """The model directory of a name: a mini or fetched model, a directory, or `final/` of a training run.

    Raises WeightsError if there is none, or if the run is unfinished.
    """
    path = names.resolve_model(name)
    if (path / FINAL).is_dir():
        return path / FINAL
    if path.is_dir() and (path / "checkpoints").is_dir():
        raise WeightsError(
            f"{name}: expected a finished run with {FINAL}/, found an unfinished one",
            hint="finish it with the same `stylear train` command, or name one of its checkpoints",
        )
    return path


def load_model(
    name: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    *,
    with_clip: bool = True,
    trained_dtype: torch.dtype | None = None,
) -> StyleModel:
    """Load a model by the name of a mini or fetched model or by its directory, in evaluation mode.

    The family is the one that its config.json names. `dtype` is float32 by default; the VQ model stays in
    float32, so that codes do not depend on it. `trained_dtype` is that of LoRA and the resampler, by default
    `dtype`. `with_clip` loads the style encoder too. Raises WeightsError
    naming the file, key and shape if something is missing or belongs to another model.
    """
    directory = names.resolve_model(name)
    if not directory.is_dir():
        raise WeightsError(f"{name}: expected a model directory, found a file")
    dtype = torch.float32 if dtype is None else dtype
    if (directory / lora.CONFIG_FILE).is_file():
        model = load_adapter(directory, device, dtype, trained_dtype)
    else:
        model = load_full(directory, directory, device, dtype)
    if model.settings.resampler is not None:
        model.resampler = load_resampler(directory, model, device, trained_dtype or dtype)
    if model.settings.clip is not None and with_clip:
        from stylear.encoders.clip import ClipEncoder

        model.clip = ClipEncoder.open(model.settings.clip, device=device)
        require_same_width(model, directory)
    return model.eval()


def require_same_width(model: StyleModel, directory: Path) -> None:
    """Raise WeightsError if the style encoder's features are not as wide as the resampler reads them."""
    if model.clip is None or model.resampler is None:
        return
    expected, found = model.resampler.config.embedding_dim, model.clip.feature_dim
    if expected != found:
        raise WeightsError(
            f"{directory / STYLE}: clip {model.settings.clip}: expected features of width {expected}, "
            f"found {found}",
            hint="name the style encoder that the weights were trained with",
        )


def load_full(
    directory: Path, style_directory: Path, device: torch.device | str, dtype: torch.dtype
) -> StyleModel:
    """Decoder, VQ model and layout of a directory with all weights, and the settings of another one."""
    config = weights.read_json(directory / CONFIG)
    family = find_family(config, directory)
    settings = read_settings(style_directory, family.settings)
    sizes = family.read_config(config)
    tokenizer = read_tokenizer(directory / TOKENIZER)
    layout = family.build_layout(tokenizer, config, settings.style_placeholder)
    top = max(layout.vocabulary.values())
    if top >= sizes.vocab_size:
        raise WeightsError(
            f"{directory}: vocab_size expected above the tokenizer's last id {top}, "
            f"found {sizes.vocab_size}",
            hint=f"{TOKENIZER} and {CONFIG} must be those of the same model",
        )
    file = find_decoder_file(directory)
    tensors = open_tensors(file, family.roots)
    vq = family.load_vq(directory, config, tensors, device).requires_grad_(False)
    if vq.config.num_embeddings != layout.num_codes:
        raise WeightsError(
            f"{directory}: expected as many VQ codes as image tokens, "
            f"found {vq.config.num_embeddings} and {layout.num_codes}"
        )
    with torch.device("meta"):
        decoder = family.build_decoder(config, layout)
    stream_into(
        decoder,
        tensors,
        what=str(file),
        select=partial(family.select_decoder_tensors, decoder=decoder),
        dtype=dtype,
        device=device,
    )
    decoder.to(device)
    return StyleModel(directory.name, decoder, vq, layout, settings, config, source=directory)


def load_adapter(
    directory: Path,
    device: torch.device | str,
    dtype: torch.dtype,
    trained_dtype: torch.dtype | None = None,
) -> StyleModel:
    """The base model that an adapter names, with the adapter's LoRA (in `trained_dtype`) and settings.

    Raises WeightsError if the base is not the one that the adapter was trained on.
    """
    path = directory / STYLE
    lineage: dict[str, Any] = weights.read_json(path).get("base") or {} if path.exists() else {}
    base = lineage.get("model")
    if not isinstance(base, str):
        raise WeightsError(f"{path}: expected `base.model`, found none")
    source = names.resolve_model(base)
    found, expected = hash_decoder(source), lineage.get("sha256")
    if expected is not None and found != expected:
        raise WeightsError(
            f"{directory}: base decoder expected sha256 {expected}, found {found} in {source}",
            hint="restore the base model that this adapter was trained on",
        )
    model = load_full(source, directory, device, dtype)
    lora.read_peft(model.decoder, directory, trained_dtype)
    return replace(model, name=directory.name, source=directory)


def load_resampler(
    directory: Path, model: StyleModel, device: torch.device | str, dtype: torch.dtype
) -> Resampler:
    """The resampler of a model directory. Raises WeightsError if its sizes are not the model's."""
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
    tensors = open_tensors(path, ("latents",))
    stream_into(resampler, tensors, what=str(path), dtype=dtype, device=device)
    return resampler


def open_model(
    name: str, *, device: str = "auto", dtype: str = "auto", quantize: str | None = None
) -> StyleModel:
    """Load a model by name: a shipped mini model, a fetched model, a model directory, or a training run.

    `device` is "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1"; `dtype` is "auto" (bfloat16 on a
    GPU, float32 on a CPU), "float32", "bfloat16" or "float16", and applies to decoder and resampler; the VQ
    model stays in float32. The model is in evaluation mode and named after the last part of `name`. It is
    meant for sampling: LoRA is merged and projections are fused. Training loads models with `load_model`.

    `quantize` "int8" holds the decoder's layers in 8 bit.

    Raises UsageError if the device is not available or the dtype is unknown, WeightsError naming the file and
    key if the model is missing, incomplete or of another architecture. Nothing is downloaded.

    Architectures: the families of `stylear/model/families/`, with StyleAR's style tokens.
    """
    device = pick_device(device)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if dtype not in dtypes:
        raise UsageError(f"dtype: expected one of auto, {', '.join(dtypes)}, found {dtype!r}")
    model = load_model(find_model(name), device=device, dtype=dtypes[dtype])
    fuse_decoder(model.decoder)
    if quantize is not None:
        quantize_decoder(model.decoder, quantize)
    return replace(model, name=Path(name).resolve().name)
