"""Supervised fine-tuning (SFT): style tokens in, image codes out. The loop reads top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylear.console import Bar, say, say_warning
from stylear.curate.corpus.parquet import file_sha256
from stylear.curate.corpus.shards import shard_paths
from stylear.device import pick_device
from stylear.errors import CorpusError, UsageError, WeightsError
from stylear.model.build import attach_style_encoder
from stylear.model.chameleon import describe_lineage, save_model
from stylear.model.lora import apply_lora, lora_layers, lora_parameters, merge_lora
from stylear.model.open import load_model
from stylear.model.style_model import StyleModel
from stylear.model.style_tokens import STYLE_TOKENS, add_noise
from stylear.train import checkpoint
from stylear.train.checkpoint import Metrics, Run
from stylear.train.data import (
    EncodedSet,
    TrainingBatch,
    forward_logits,
    make_step_generator,
    open_encoded,
)
from stylear.train.losses import image_code_loss
from stylear.train.optim import Optimisers
from stylear.train.settings import Settings, SftSettings

VALIDATION_BATCHES = 8
SAMPLES = 6


def run(settings: SftSettings) -> Path:
    """Train on the pairs of corpora, or resume an interrupted run; returns the directory of the final model.

    Writes `settings.out`: settings.json, metrics.jsonl (loss in nats per image code), tensorboard/,
    samples/, checkpoints/, encoded/ and final/. A step depends on (seed, step) alone, so that a resumed run
    gives the same weights. Warnings go to stderr and into the model's record.

    Raises CorpusError if a corpus has no training shards, SettingsChanged if `out` holds another run,
    UsageError if the device is not available or the number of style tokens does not fit, WeightsError if
    the model cannot be read. Source: StyleAR (arXiv 2505.19874), trainer defaults of Lumina-mGPT (arXiv
    2408.02657).
    """
    device = pick_device(settings.device)
    check_shards(settings.corpus)
    source = find_final_model(settings.model)
    base = load_model(source, device, with_clip=True)
    training_run = checkpoint.open_run(
        "sft", settings, str(describe_lineage(base).get("sha256", ""))
    )
    if training_run.final.is_dir():
        say(f"{training_run.root}: already trained")
        return training_run.final
    last_checkpoint = checkpoint.find_last_checkpoint(training_run)
    start = 0
    if last_checkpoint is None:
        model = ensure_style_tokens(base, settings)
        prepare_lora(model, settings)
    else:
        model, start = checkpoint.restore_model(last_checkpoint, device)
        say(f"resuming from step {start}")
    cache = settings.encoded or training_run.root / "encoded"
    corpora, copies = settings.corpus, settings.augment_copies
    data = open_encoded(model, corpora, "train", cache, copies=copies)
    training = describe_training(settings, len(data))
    model.settings = replace(model.settings, base=describe_origin(base, settings, training))
    for warning in training["warnings"]:
        say_warning(warning)
    validation = open_validation(model, settings, cache)
    optimisers = Optimisers(
        select_trainable(model, settings.full), settings, choose_learning_rates(settings)
    )
    if last_checkpoint is not None:
        checkpoint.restore_optimisers(last_checkpoint, optimisers)
    set_training(model)
    warned_of_context = False
    with (
        Metrics(training_run, start) as metrics,
        Bar("sft", total=settings.steps, unit="steps") as bar,
    ):
        bar.advance(start)
        for step in range(start, settings.steps):
            batch = data.build_step_batch(
                settings.seed,
                step,
                settings.batch_size,
                dropout=settings.condition_dropout,
                style_from=settings.style_from,
            )
            with autocast(settings.precision, device):
                logits = compute_logits(model, batch, settings.sigma, settings.seed, step)
                loss = image_code_loss(logits, batch.batch.codes.to(device), settings.z_loss)
            torch.autograd.backward(loss)
            norm, rate = optimisers.step(step)
            done = step + 1
            values = {"loss": loss.item(), "gradient_norm": norm, "lr": rate}
            values |= {
                "epoch": done * settings.batch_size / len(data),
                "repeated_pairs": batch.repeated_pairs,
                "tokens_beyond_context": batch.tokens_beyond_context,
            }
            if batch.tokens_beyond_context and not warned_of_context:
                warned_of_context = True
                say_warning(
                    f"step {done}: the longest sequence exceeds the context of {model.name};"
                    " see tokens_beyond_context in metrics.jsonl"
                )
            if validation is not None and (
                done % settings.validate_every == 0 or done == settings.steps
            ):
                values["validation_loss"] = validate(model, validation, settings, device)
            metrics.write(done, values)
            bar.advance(1, f"loss {values['loss']:.3f}")
            if done % settings.sample_every == 0 or done == settings.steps:
                draw_samples(training_run, model, validation or data, done)
            if done % settings.save_every == 0 or done == settings.steps:
                checkpoint.save_checkpoint(training_run, model, optimisers, done, settings.keep)
    save_model(model.eval(), training_run.final)
    return training_run.final


def check_shards(corpora: Sequence[Path]) -> None:
    """Raise CorpusError for a corpus without training shards, before anything is written."""
    for corpus in corpora:
        if not shard_paths(corpus / "train"):
            raise CorpusError(
                f"{corpus / 'train'}: expected shards to train on, found none",
                hint="check --corpus; build one with `stylear curate run RECIPE --out CORPUS`",
            )


def find_final_model(model: str) -> str:
    """The final model of a finished run; any other name unchanged."""
    final = Path(model) / "final"
    return str(final) if final.is_dir() else model


def ensure_style_tokens(base: StyleModel, settings: SftSettings) -> StyleModel:
    """The base with the requested style tokens. Raises UsageError if it has another number of them."""
    count = settings.style_tokens
    if count is None:
        count = base.num_style_tokens or STYLE_TOKENS
    if base.num_style_tokens and base.num_style_tokens != count:
        raise UsageError(
            f"style_tokens: expected {base.num_style_tokens} as {base.name} has, found {count}",
            hint=f"give --style-tokens {base.num_style_tokens}, or leave it out",
        )
    if base.num_style_tokens or count == 0:
        return base
    return attach_style_encoder(
        base, settings.clip, count, seed=settings.seed, sizes=settings.resampler
    )


def describe_training(settings: Settings, pairs: int) -> dict[str, Any]:
    """The training record of the final model: settings, number of pairs, warnings."""
    kept = {"steps", "batch_size", "lr", "optimizer", "full", "seed"}
    warnings = []
    if settings.batch_size > pairs:
        warnings.append(
            f"batch_size {settings.batch_size} is more than the {pairs} pairs of the corpus; every step"
            f" repeats at least {settings.batch_size - pairs} of them"
        )
    return {**settings.model_dump(mode="json", include=kept), "pairs": pairs, "warnings": warnings}


def describe_origin(
    base: StyleModel, settings: Settings, training: Mapping[str, Any]
) -> dict[str, Any]:
    """The lineage of the final model: its base, all corpora that shaped it, and its training record.

    The corpora of the base come first: what was trained into it is still in there.
    """
    corpora = list(base.settings.base.get("corpora") or ())
    for corpus in settings.corpus:
        manifest = corpus / "manifest.json"
        digest = file_sha256(manifest) if manifest.is_file() else None
        named = {"name": corpus.resolve().name, "manifest_sha256": digest}
        corpora += [] if named in corpora else [named]
    first = describe_lineage(base)
    if settings.full and first.get("model"):
        # the base is no longer needed, so its name is enough
        first["model"] = Path(str(first["model"])).name
    return {**first, "corpora": corpora, "training": dict(training)}


def prepare_lora(model: StyleModel, settings: Settings) -> None:
    """Add LoRA, keep existing LoRA, or merge it if every weight is trained (`full`)."""
    adapted = next(lora_layers(model.decoder), None) is not None
    if settings.full and adapted:
        merge_lora(model.decoder)
    elif not settings.full and not adapted:
        apply_lora(model.decoder, settings.lora_rank, seed=settings.seed)


def select_trainable(model: StyleModel, full: bool) -> Iterator[tuple[str, nn.Parameter]]:
    """Freeze all parameters but those to train; yields these by name."""
    for part in (model.decoder, model.vq):
        part.requires_grad_(False)
    if full:
        model.decoder.requires_grad_(True)
    else:
        for parameter in lora_parameters(model.decoder):
            parameter.requires_grad_(True)
    for name, parameter in model.decoder.named_parameters():
        if parameter.requires_grad:
            yield f"decoder.{name}", parameter
    if model.resampler is not None:
        for name, parameter in model.resampler.requires_grad_(True).named_parameters():
            yield f"resampler.{name}", parameter


def choose_learning_rates(settings: SftSettings) -> dict[str, float]:
    """Learning rates by prefix of the parameter name."""
    return {} if settings.resampler_lr is None else {"resampler.": settings.resampler_lr}


def set_training(model: StyleModel) -> None:
    model.decoder.train()
    if model.resampler is not None:
        model.resampler.train()


def autocast(precision: str, device: str) -> torch.autocast:
    """Automatic casting to bf16 if the precision asks for it."""
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=precision == "bf16")


def compute_logits(
    model: StyleModel, batch: TrainingBatch, sigma: float, seed: int, step: int
) -> Tensor:
    """Logits (N, V) of a step; the noise depends only on (seed, step)."""
    tokens = None
    if batch.features is not None and len(batch.features):
        if model.resampler is None:
            raise WeightsError(f"{model.name}: expected a resampler, found none")
        tokens = model.resampler(batch.features.to(model.device))
        tokens = add_noise(tokens, sigma, make_step_generator(seed, step))
    return forward_logits(model, batch.batch.to(model.device), tokens)


def open_validation(model: StyleModel, settings: SftSettings, cache: Path) -> EncodedSet | None:
    """The encoded val split; None if no corpus has one."""
    corpora = [corpus for corpus in settings.corpus if any((corpus / "val").glob("*.tar"))]
    return open_encoded(model, corpora, "val", cache, copies=1) if corpora else None


@torch.no_grad()
def validate(
    model: StyleModel, validation: EncodedSet, settings: SftSettings, device: str
) -> float:
    """Mean loss over at most VALIDATION_BATCHES batches, the same at every call."""
    model.decoder.eval()
    total, count = 0.0, 0
    for number in range(VALIDATION_BATCHES):
        if number * settings.batch_size >= len(validation):
            break
        size = min(settings.batch_size, len(validation) - number * settings.batch_size)
        batch = validation.build_step_batch(
            0, number, size, dropout=0.0, style_from=settings.style_from
        )
        with autocast(settings.precision, device):
            logits = compute_logits(model, batch, 0.0, 0, number)
            loss = image_code_loss(logits, batch.batch.codes.to(device))
        total, count = total + loss.item() * size, count + size
    model.decoder.train()
    return total / count


def draw_samples(training_run: Run, model: StyleModel, data: EncodedSet, step: int) -> None:
    """Write a strip of pictures for the first captions, each in the style of its own row."""
    from stylear.sampling.generate import decode_codes, sample_codes

    rows = data.draw_rows(0, 0, min(SAMPLES, len(data)))
    captions = [str(data.rows[row]["caption"]) for row in rows]
    styles: list[Tensor | None] = [None] * len(rows)
    model.decoder.eval()
    with torch.no_grad():
        if data.features is not None and model.resampler is not None:
            features = data.features[rows].float().to(model.device)
            styles = list(model.resampler(features))
        draws = torch.rand(len(rows), *model.grid, generator=make_step_generator(0, 0))
        prompts = [model.encode_prompt(caption) for caption in captions]
        codes = sample_codes(model.decoder, model.layout, prompts, styles, draws)
        pictures = decode_codes(model, codes)
    model.decoder.train()
    side = pictures[0].width
    from PIL import Image

    strip = Image.new("RGB", (side * len(pictures), side), "white")
    for column, picture in enumerate(pictures):
        strip.paste(picture, (column * side, 0))
    path = training_run.root / "samples" / f"step-{step:07d}.png"
    path.parent.mkdir(exist_ok=True)
    strip.save(path)
