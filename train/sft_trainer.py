"""Supervised fine-tuning (SFT): style tokens in, image codes out. The loop reads top to bottom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from stylear.console import Bar, say, say_warning
from stylear.device import pick_device
from stylear.errors import UsageError
from stylear.model.build import attach_style_encoder
from stylear.model.lineage import describe_lineage
from stylear.model.open import load_model
from stylear.model.save import save_model
from stylear.model.style_model import StyleModel
from stylear.model.style_tokens import STYLE_TOKENS
from stylear.train import checkpoint
from stylear.train.data import open_encoded
from stylear.train.data_checks import check_data
from stylear.train.forward import compute_logits
from stylear.train.inputs import check_shards, find_final_model
from stylear.train.lineage import describe_origin, describe_training
from stylear.train.losses import image_code_loss
from stylear.train.metrics import Metrics
from stylear.train.optim import Optimisers
from stylear.train.precision import autocast
from stylear.train.samples import draw_samples
from stylear.train.settings import SftSettings
from stylear.train.trainable import (
    choose_learning_rates,
    prepare_lora,
    select_trainable,
    set_training,
)
from stylear.train.validation import open_validation, validate


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
    data = open_encoded(
        model,
        settings.corpus,
        "train",
        cache,
        copies=settings.augment_copies,
        features=settings.features,
        buckets=settings.buckets,
        weights=settings.corpus_weights,
    )
    training = describe_training(settings, len(data))
    training["warnings"] += check_data(data, settings.batch_size, settings.style_from)
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
