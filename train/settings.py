"""Settings of training runs: flags and YAML files build the same frozen objects. Imports no torch.

Descriptions say where a default comes from: paper (arXiv 2505.19874), code (its released inference
code), base (the trainer of Lumina-mGPT), ours (our choice).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from stylear.embedded import find_manifest
from stylear.errors import RecipeError, SourceError
from stylear.train.setting_types import Blocks, Corpus, Features, Sigma, Size


class Settings(BaseModel):
    """Settings of every training run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: tuple[Corpus, ...] = Field(description="Corpora to train on, one or more.")
    model: str = Field(description="Model to start from: a mini name, a model directory or a run.")
    out: Path = Field(description="Directory of the run.")
    steps: int = Field(1000, ge=1, description="Optimiser steps.")
    batch_size: int = Field(16, ge=1, description="Batch size.")
    lr: float = Field(2e-5, gt=0, description="Learning rate (base).")
    schedule: Literal["constant", "cosine"] = Field("constant", description="LR schedule (base).")
    warmup: int = Field(0, ge=0, description="Linear warm-up steps (ours).")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: Muon for matrices (ours)."
    )
    optimizer_kernels: Literal["fused", "foreach", "loop"] = Field(
        "fused", description="How AdamW updates: fused kernels, foreach or one by one (ours)."
    )
    weight_decay: float = Field(0.1, ge=0, description="Weight decay of matrices (base).")
    clip_norm: float = Field(4.0, gt=0, description="Maximum gradient norm (base).")
    full: bool = Field(False, description="Train all decoder weights instead of LoRA.")
    lora_rank: int | None = Field(
        None, ge=1, description="LoRA rank; default: the adapter's own, else 4 (code)."
    )
    lora_alpha: float | None = Field(
        None,
        gt=0,
        description="LoRA scale times rank; default: the adapter's own, else the rank (code).",
    )
    lora_targets: tuple[str, ...] | None = Field(
        None,
        description="Names of layers with LoRA; default: the adapter's own, else those of the model (code).",
    )
    lora_dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Dropout before LoRA; default: the adapter's own, else 0 (code).",
    )
    use_rslora: bool | None = Field(
        None,
        description="Scale LoRA by alpha / sqrt(rank); default: as the adapter, else alpha / rank.",
    )
    lora_config: Path | None = Field(
        None, description="PEFT's adapter_config.json to take LoRA's settings from."
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: matrix products in bf16; trained weights stay in fp32."
    )
    base_dtype: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto", description="Dtype of the frozen base; auto: that of precision (ours)."
    )
    checkpoint_blocks: Blocks = Field(
        "none", description="Activation checkpointing: none, all blocks, or every k-th (ours)."
    )
    compile: bool = Field(False, description="Compile each block with torch.compile (ours).")
    device: str = Field("auto", description="torch device; auto: cuda if available.")
    seed: int = Field(0, description="Random seed of order, dropout, noise and new weights.")
    encoded: Path | None = Field(
        None, description="Cache directory of image codes and style features; default OUT/encoded."
    )
    features: Features = "cache"
    save_every: int = Field(200, ge=1, description="Steps between checkpoints.")
    keep: int = Field(2, ge=1, description="Number of checkpoints to keep.")
    wandb: str | None = Field(
        None, description="Project of Weights & Biases to log to; default: not logged there."
    )


class SftSettings(Settings):
    """Supervised fine-tuning on image codes."""

    style_tokens: int | None = Field(
        None,
        ge=0,
        description="Number of style tokens; 0: text only; default: the model's own, else 16 (code).",
    )
    clip: str = Field("mini-clip", description="Frozen image encoder of the style tokens.")
    resampler: dict[str, int] = Field(default_factory=dict, description="Resampler sizes.")
    sigma: Sigma = Field(
        (0.1, 0.1),
        description="Noise std on style tokens, or a range to draw it from (ours; unreported).",
    )
    style_from: Literal["self", "sibling"] = Field(
        "self",
        description="self: features of the target (paper); sibling: of another image in its style (ours).",
    )
    condition_dropout: float = Field(
        0.1, ge=0, le=1, description="Probability of dropping style and text together (base)."
    )
    style_dropout: float = Field(
        0.0, ge=0, le=1, description="Probability of dropping style (ours)."
    )
    text_dropout: float = Field(0.0, ge=0, le=1, description="Probability of dropping text (ours).")
    code_noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Largest share of wrong codes in the input; each example draws its own (ours).",
    )
    z_loss: float = Field(1e-5, ge=0, description="Z-loss weight (base).")
    augment_copies: int = Field(
        1, ge=1, description="Augmented copies per image, shifted and flipped."
    )
    buckets: tuple[Size, ...] = Field(
        (),
        description="Image sizes HEIGHTxWIDTH; each picture takes the nearest aspect ratio; default: the"
        " tokenizer's square (ours).",
    )
    corpus_weights: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None,
        description="Shares of the corpora among the examples; default: by their sizes (ours).",
    )
    resampler_lr: float | None = Field(
        None, gt=0, description="Learning rate of the resampler; default lr."
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="Parts of a batch that each GPU computes in sequence (ours).",
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of the moving average of the trained weights; 0: none (ours).",
    )
    use_ema: bool = Field(
        True, description="Validate, sample and finish with the moving average if there is one."
    )
    shard_base: bool = Field(
        False, description="Shard the frozen base over the GPUs by FSDP2 (ours); needs torchrun."
    )
    keep_best: bool = Field(
        False, description="Also keep the checkpoint with the lowest validation loss."
    )
    peak_tflops: float | None = Field(
        None, gt=0, description="Peak TFLOP/s of the device for mfu; default: by the GPU's name."
    )
    validate_every: int = Field(200, ge=1, description="Steps between validations.")
    sample_every: int = Field(500, ge=1, description="Steps between sample images.")


class DpoSettings(Settings):
    """Preference optimisation against the frozen starting model."""

    lr: float = Field(5e-6, gt=0, description="Learning rate (ours).")
    steps: int = Field(200, ge=1, description="Optimiser steps (ours; unreported).")
    batch_size: int = Field(8, ge=1, description="Batch size, in preference pairs (ours).")
    accumulate: int = Field(
        1,
        ge=1,
        description="Parts of a batch that each GPU computes in sequence (ours).",
    )
    beta: float = Field(
        0.1, gt=0, description="Strength of the KL penalty (DPO paper; unreported)."
    )
    kind: Literal["sigmoid", "robust", "ipo", "simpo", "kto"] = Field(
        "sigmoid", description="Preference loss."
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Assumed share of wrong labels, for kinds sigmoid and robust (ours).",
    )
    simpo_margin: float = Field(0.5, ge=0, description="Target margin of kind simpo (ours).")
    length_normalised: bool = Field(
        False, description="Log-probabilities per code (ours); simpo always has them per code."
    )
    chosen_nll: float = Field(
        0.0, ge=0, description="Weight of the NLL per code of chosen images (ours)."
    )
    pairs: tuple[Path, ...] = Field(
        (),
        description="Output folders of `stylear train pairs`; default: the corpora's preferences.",
    )

    @model_validator(mode="after")
    def _check_label_smoothing(self) -> Self:
        if self.label_smoothing and self.kind not in ("sigmoid", "robust"):
            raise ValueError(
                f"label_smoothing: expected 0 with kind {self.kind}, found {self.label_smoothing:g}"
            )
        return self


class ScoringSettings(BaseModel):
    """Frozen scorers of a model's own pictures."""

    judge: str | None = Field(
        None,
        description="CLIP model of the text score and of clip-image; default: that of the corpus's"
        " clip-text, else mini-clip.",
    )
    style_score: Literal["clip-image", "csd", "texture"] | None = Field(
        None,
        description="Score of the similarity to training images of the style; default: the corpus's own"
        " style score, else clip-image (ours).",
    )
    csd: Path | None = Field(None, description="CSD checkpoint, for style_score csd.")
    style_images: int = Field(
        4, ge=1, description="Training images of the style to compare with, at most (ours)."
    )

    @model_validator(mode="after")
    def _check_csd(self) -> Self:
        if (self.csd is not None) != (self.style_score == "csd"):
            raise ValueError(
                f"csd: expected a checkpoint with style_score csd alone, found {self.csd} with"
                f" style_score {self.style_score}"
            )
        return self


class GrpoSettings(ScoringSettings, Settings):
    """Policy optimisation on the scores of a model's own pictures."""

    lr: float = Field(1e-5, gt=0, description="Learning rate (ours).")
    steps: int = Field(50, ge=1, description="Steps: each draws new pictures (ours).")
    batch_size: int = Field(16, ge=1, description="Pictures drawn and trained on at a time (ours).")
    prompts: int = Field(8, ge=1, description="Prompts per step, each in one style (ours).")
    samples: int = Field(
        8, ge=2, description="Pictures per prompt, compared with each other (ours)."
    )
    updates: int = Field(
        1, ge=1, description="Optimiser steps on the pictures of each step (ours)."
    )
    clip: float = Field(0.2, gt=0, lt=1, description="Range of the probability ratio (PPO).")
    kl_weight: float = Field(
        0.04, ge=0, description="Weight of the KL divergence from the starting model (GRPO paper)."
    )
    guidance: float = Field(4.0, ge=0, description="Classifier-free guidance scale (code).")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature (code).")


class PairsSettings(ScoringSettings):
    """On-policy preference pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: tuple[Corpus, ...] = Field(description="Corpora to take prompts and styles from.")
    model: str = Field(description="Model to sample from: a mini name, a model directory or a run.")
    out: Path = Field(description="Output folder; resumable.")
    prompts: int = Field(200, ge=1, description="Number of prompts, each in one style (ours).")
    samples: int = Field(4, ge=2, description="Samples per prompt; best and worst are paired.")
    margin: float = Field(0.05, ge=0, description="Minimum score margin between best and worst.")
    guidance: float = Field(4.0, ge=0, description="Classifier-free guidance scale (code).")
    style_guidance: float | None = Field(
        None,
        ge=0,
        description="Guidance scale of the style alone, as `stylear generate` has it (ours).",
    )
    top_k: int = Field(2000, ge=1, description="Sample from the K most likely image codes (code).")
    temperature: float = Field(1.0, ge=0, description="Sampling temperature (code).")
    sampling_batch: int = Field(64, ge=1, description="Sampling batch size.")
    device: str = Field("auto", description="torch device; auto: cuda if available.")
    seed: int = Field(0, description="Random seed of prompts, styles and samples.")
    encoded: Path | None = Field(
        None, description="Cache directory of image codes and style features; default OUT/encoded."
    )
    features: Features = "cache"


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
            document = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SourceError(f"{config}: cannot be read: {error}") from error
        if not isinstance(document, dict):
            raise RecipeError(
                f"{config}: expected keys and values, found {type(document).__name__}"
            )
        values = {str(key): value for key, value in document.items()}
    values |= {key: value for key, value in flags.items() if value is not None}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        close = difflib.get_close_matches(key, list(kind.model_fields), 1)
        hint: str | None = f"keys: {', '.join(kind.model_fields)}"
        field = str(first["loc"][0]) if first["loc"] else key
        if field in kind.model_fields:
            hint = kind.model_fields[field].description
        elif close:
            hint = f"did you mean {close[0]}?"
        if first["type"] == "missing":
            flag = "--" + key.replace("_", "-")
            raise RecipeError(f"{key}: required, found nothing", hint=f"give {flag}") from error
        where = f"{config}: " if config is not None else ""
        raise RecipeError(
            f"{where}{key}: {first['msg']}, found {first['input']!r}", hint=hint
        ) from error
