"""Settings of training runs: flags and YAML files build the same frozen objects. Imports no torch.

The source of each default is noted: paper (arXiv 2505.19874), code (its released inference code),
base (the trainer of Lumina-mGPT), ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError

from stylear.curate.corpus.object_store import corpus_path
from stylear.embedded import find_manifest
from stylear.errors import RecipeError, SourceError


def _corpus(value: Any) -> Path:
    """A folder or a URL. Raises ValueError for anything else, with the reason if a URL is invalid."""
    if not isinstance(value, (str, Path)):
        raise ValueError("expected a folder or a URL")
    return corpus_path(value)


Corpus = Annotated[Path, PlainValidator(_corpus), PlainSerializer(str)]


class Settings(BaseModel):
    """Settings of every training run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: tuple[Corpus, ...] = Field(description="Corpora to train on, one or more.")
    model: str = Field(description="Model to start from: a mini name, a model directory or a run.")
    out: Path = Field(description="Directory of the run.")
    steps: int = Field(1000, ge=1, description="Optimiser steps.")
    batch_size: int = Field(16, ge=1, description="Examples a step.")
    lr: float = Field(2e-5, gt=0, description="Learning rate (base).")
    schedule: Literal["constant", "cosine"] = Field("constant", description="Of the rate (base).")
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up (ours).")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: for matrices (ours).")
    weight_decay: float = Field(0.1, ge=0, description="Decay of matrices (base).")
    clip_norm: float = Field(4.0, gt=0, description="Gradient norm limit (base).")
    full: bool = Field(False, description="Train every weight of the decoder, not LoRA.")
    lora_rank: int = Field(4, ge=1, description="Rank of LoRA (code).")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: automatic casting.")
    device: str = Field("auto", description="torch device; auto: cuda if available.")
    seed: int = Field(0, description="Fixes order, dropout, noise and fresh weights.")
    encoded: Path | None = Field(
        None, description="Cache of codes and features; default OUT/encoded."
    )
    save_every: int = Field(200, ge=1, description="Steps between checkpoints.")
    keep: int = Field(2, ge=1, description="Checkpoints kept.")


class SftSettings(Settings):
    """Supervised fine-tuning on image codes."""

    style_tokens: int | None = Field(
        None,
        ge=0,
        description="Style tokens; 0: text only; default: as many as the model has, else 16 (code).",
    )
    clip: str = Field("mini-clip", description="Frozen image encoder of the style tokens.")
    resampler: dict[str, int] = Field(default_factory=dict, description="Sizes of the resampler.")
    sigma: float = Field(0.1, ge=0, description="Noise on style tokens; unreported, so ours.")
    style_from: Literal["self", "sibling"] = Field(
        "self",
        description="self: features of the target (paper); sibling: of another picture in its style (ours).",
    )
    condition_dropout: float = Field(
        0.1, ge=0, le=1, description="Fraction trained without condition (base)."
    )
    z_loss: float = Field(1e-5, ge=0, description="Weight of logsumexp^2 (base).")
    augment_copies: int = Field(
        1, ge=1, description="Encoded copies of each picture, shifted and mirrored."
    )
    resampler_lr: float | None = Field(None, gt=0, description="Rate of the resampler; default lr.")
    validate_every: int = Field(200, ge=1, description="Steps between validations.")
    sample_every: int = Field(500, ge=1, description="Steps between sample pictures.")


class DpoSettings(Settings):
    """Preference optimisation against the frozen starting model."""

    lr: float = Field(5e-6, gt=0, description="Learning rate (ours).")
    steps: int = Field(200, ge=1, description="Optimiser steps (ours; unreported).")
    batch_size: int = Field(8, ge=1, description="Preference pairs a step (ours).")
    beta: float = Field(0.1, gt=0, description="Strength of the reference (DPO paper; unreported).")
    kind: Literal["sigmoid", "ipo", "simpo"] = Field("sigmoid", description="Loss.")
    length_normalised: bool = Field(False, description="Log-probabilities per code (ours).")
    chosen_nll: float = Field(0.0, ge=0, description="Weight of the chosen image's NLL (ours).")
    pairs: tuple[Path, ...] = Field(
        (), description="Folders of `stylear train pairs`; default: the pairs of the corpora."
    )


class PairsSettings(BaseModel):
    """On-policy preference pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: tuple[Corpus, ...] = Field(description="Corpora with the prompts and styles.")
    model: str = Field(
        description="Whose pictures to pair: a mini name, a model directory or a run."
    )
    out: Path = Field(description="Folder of the pairs; resumable.")
    prompts: int = Field(200, ge=1, description="Prompts to draw, each in one style (ours).")
    samples: int = Field(4, ge=2, description="Pictures of a prompt; best and worst are paired.")
    margin: float = Field(0.05, ge=0, description="Least lead of the best over the worst.")
    judge: str = Field("mini-clip", description="CLIP model that scores text and style.")
    guidance: float = Field(4.0, ge=0, description="Classifier-free guidance (code).")
    top_k: int = Field(2000, ge=1, description="Codes that can be drawn (code).")
    temperature: float = Field(1.0, ge=0, description="Of the draws (code).")
    sampling_batch: int = Field(64, ge=1, description="Pictures drawn at once.")
    device: str = Field("auto", description="torch device; auto: cuda where there is one.")
    seed: int = Field(0, description="Fixes prompts, styles and draws.")
    encoded: Path | None = Field(
        None, description="Cache of codes and features; default OUT/encoded."
    )


AnySettings = TypeVar("AnySettings", bound=BaseModel)


def load_settings(
    kind: type[AnySettings], config: Path | None, flags: Mapping[str, Any]
) -> AnySettings:
    """Settings from a YAML file and flags; a flag that is not None overrides the file.

    Relative paths are relative to the working directory. Raises RecipeError naming the key, SourceError if
    the file cannot be read.
    """
    values: dict[str, Any] = {}
    if config is not None:
        config = find_manifest(config)
        try:
            found = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SourceError(f"{config}: cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise RecipeError(f"{config}: expected keys and values, found {type(found).__name__}")
        values = {str(key): value for key, value in found.items()}
    values |= {key: value for key, value in flags.items() if value is not None}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        close = difflib.get_close_matches(key, list(kind.model_fields), 1)
        hint: str | None = f"keys: {', '.join(kind.model_fields)}"
        if key in kind.model_fields:
            hint = kind.model_fields[key].description
        elif close:
            hint = f"did you mean {close[0]}?"
        if first["type"] == "missing":
            flag = "--" + key.replace("_", "-")
            raise RecipeError(f"{key}: required, found nothing", hint=f"give {flag}") from error
        where = f"{config}: " if config is not None else ""
        raise RecipeError(
            f"{where}{key}: {first['msg']}, found {first['input']!r}", hint=hint
        ) from error
