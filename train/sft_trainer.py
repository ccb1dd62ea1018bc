"""Supervised fine-tuning (SFT): style tokens in, image codes out. The loop reads top to bottom."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch

from stylear.console import Bar, say, say_warning
from stylear.errors import UsageError
from stylear.model.build import attach_style_encoder
from stylear.model.lineage import describe_lineage
from stylear.model.save import save_model
from stylear.model.style_model import StyleModel
from stylear.model.style_tokens import STYLE_TOKENS
from stylear.train import checkpoint
from stylear.train.average import MovingAverage
from stylear.train.code_noise import add_code_noise
from stylear.train.data import Dropout, EncodedSet, TrainingBatch, open_encoded
from stylear.train.data_checks import check_data
from stylear.train.distributed import Ranks, join_ranks, shard_base
from stylear.train.finite import require_finite
from stylear.train.forward import compute_logits
from stylear.train.inputs import check_division, check_shards, find_final_model
from stylear.train.lineage import describe_origin, describe_training
from stylear.train.losses import image_code_loss
from stylear.train.memory import check_memory
from stylear.train.metrics import Metrics, check_wandb
from stylear.train.optim import Optimisers
from stylear.train.precision import hold_base, load_for_training
from stylear.train.prefetch import prefetch
from stylear.train.samples import draw_samples
from stylear.train.settings import SftSettings
from stylear.train.throughput import Speedometer
from stylear.train.trainable import (
    choose_learning_rates,
    prepare_blocks,
    prepare_lora,
    seed_dropout,
    select_trainable,
    set_training,
)
from stylear.train.validation import LOSS, open_validation, validate


def run(settings: SftSettings) -> Path:
    """Train on the pairs of corpora, or resume an interrupted run; returns the directory of the final model.

    Writes `settings.out`: settings.json, metrics.jsonl (loss in nats per image code), tensorboard/,
    samples/, checkpoints/, encoded/ and final/. A step depends on (seed, step) alone, so that a resumed run
    gives the same weights. Under torchrun each process computes its part of every batch. Warnings go to
    stderr and into the model's record.

    Raises CorpusError if a corpus has no training shards, SettingsChanged if `out` holds another run,
    TrainingError if a loss is not finite, UsageError if the device is not available or a setting does not fit
    model, corpus or memory, WeightsError if the model cannot be read. Source: StyleAR (arXiv 2505.19874),
    trainer defaults of Lumina-mGPT (arXiv 2408.02657).
    """
    with join_ranks(settings.device) as ranks:
        return train(settings, ranks)


def train(settings: SftSettings, ranks: Ranks) -> Path:
    """One rank's part of a run; returns the directory of the final model."""
    check_wandb(settings)
    check_shards(settings.corpus)
    base = load_for_training(find_final_model(settings.model), settings, ranks.device)
    with ranks.first_goes_first():
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
        model, start = checkpoint.restore_model(last_checkpoint, base)
        say(f"resuming from step {start}")
    cache = settings.encoded or training_run.root / "encoded"
    with ranks.first_goes_first():
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
        validation = open_validation(model, settings, cache)
    check_division(settings, len(data), ranks.world_size)
    training = describe_training(settings, len(data))
    training["warnings"] += check_data(data, settings.batch_size, settings.style_from)
    model.settings = replace(model.settings, base=describe_origin(base, settings, training))
    del base  # of a resumed run it is a second copy
    for warning in training["warnings"]:
        say_warning(warning)
    hold_base(model, settings)
    optimisers = Optimisers(
        select_trainable(model, settings.full), settings, choose_learning_rates(settings)
    )
    average = MovingAverage(optimisers.named, settings.ema_decay) if settings.ema_decay else None
    if last_checkpoint is not None:
        checkpoint.restore_optimisers(last_checkpoint, optimisers)
        if average is not None:
            checkpoint.restore_average(last_checkpoint, average)
    prepare_blocks(model, settings)
    set_training(model)
    check_memory(model, settings, ranks, build_parts(data, settings, start, ranks)[0])
    if settings.shard_base:
        shard_base(model.decoder, ranks)
    evaluated = average.applied if average is not None and settings.use_ema else nullcontext
    speedometer = Speedometer(model.decoder, ranks.device, settings.peak_tflops, ranks.world_size)
    with (
        Metrics(training_run, start, settings, is_first=ranks.is_first) as metrics,
        Bar("sft", total=settings.steps, unit="steps") as bar,
    ):
        bar.skip(start)
        batches = prefetch(
            lambda step: build_parts(data, settings, step, ranks), range(start, settings.steps)
        )
        for step, (parts, data_s) in enumerate(batches, start):
            began = perf_counter()
            num_codes, num_tokens = ranks.sum(
                [
                    sum(len(part.batch.codes) for part in parts),
                    sum(int(part.batch.lengths.sum()) for part in parts),
                ]
            )
            losses = []
            for number, part in enumerate(parts):
                seed_dropout(settings.seed, step, ranks.rank * len(parts) + number)
                logits = compute_logits(
                    model, part, settings.precision, settings.sigma, settings.seed, step
                )
                loss = image_code_loss(
                    logits, part.batch.codes.to(ranks.device), settings.z_loss
                ) * (len(part.batch.codes) / num_codes)
                torch.autograd.backward(loss)
                losses.append(loss.detach())
            ranks.sum_gradients(optimisers.parameters)
            norm = optimisers.clip_gradients()
            own_losses = [loss.item() for loss in losses]
            step_loss = ranks.sum([sum(own_losses)])[0]
            done = step + 1
            require_finite(done, step_loss, norm, own_losses, parts, data, ranks)
            rate = optimisers.step(step)
            if average is not None:
                average.update(step)
            values = {
                "loss": step_loss,
                "gradient_norm": norm,
                "lr": rate,
                "epoch": done * settings.batch_size / len(data),
                "repeated_pairs": parts[0].repeated_pairs,
                "tokens_beyond_context": max(part.tokens_beyond_context for part in parts),
                **speedometer.measure(num_tokens, data_s + perf_counter() - began, data_s),
            }
            is_last = done == settings.steps
            is_saved = is_last or done % settings.save_every == 0
            is_validated = (
                is_last or done % settings.validate_every == 0 or (is_saved and settings.keep_best)
            )
            is_sampled = is_last or done % settings.sample_every == 0
            if is_validated or is_sampled:
                with evaluated():
                    if validation is not None and is_validated:
                        values |= validate(model, validation, settings, ranks)
                    if is_sampled and ranks.is_first and not settings.shard_base:
                        draw_samples(training_run, model, validation or data, done)
            metrics.write(done, values)
            bar.advance(1, f"loss {values['loss']:.3f}")
            if is_saved and ranks.is_first:
                checkpoint.save_checkpoint(
                    training_run,
                    model,
                    optimisers,
                    done,
                    settings.keep,
                    average=average,
                    validation_loss=values.get(LOSS),
                    keep_best=settings.keep_best,
                )
    with evaluated():
        if ranks.is_first:
            save_model(model.eval(), training_run.final)
    ranks.wait()
    return training_run.final


def build_parts(
    data: EncodedSet, settings: SftSettings, step: int, ranks: Ranks
) -> list[TrainingBatch]:
    """This rank's rows of a step, in as many parts as gradients are accumulated over.

    A part is what a rank would get if there were `accumulate` times as many.
    """
    parts = [
        data.build_step_batch(
            settings.seed,
            step,
            settings.batch_size,
            dropout=Dropout(
                both=settings.condition_dropout,
                style=settings.style_dropout,
                text=settings.text_dropout,
            ),
            style_from=settings.style_from,
            rank=ranks.rank * settings.accumulate + number,
            world_size=ranks.world_size * settings.accumulate,
        )
        for number in range(settings.accumulate)
    ]
    if not settings.code_noise:
        return parts
    layout = data.model.layout
    return [
        add_code_noise(part, layout, settings.code_noise, seed=settings.seed, step=step)
        for part in parts
    ]


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
