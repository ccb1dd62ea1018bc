"""Direct preference optimisation (DPO) against the frozen model that training starts from.

Reference log-probabilities are computed once, before the first step, so that one model is in memory. Style
tokens come from a training image of the same reference, without noise, so that policy and reference have
the same condition and the loss starts at ln 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stylear.console import Bar, say, say_warning
from stylear.model.save import save_model
from stylear.model.style_model import StyleModel
from stylear.sampling.context import describe_long_prompts, measure_prompt
from stylear.train import checkpoint
from stylear.train.data import find_rank_slice, open_encoded
from stylear.train.distributed import Ranks, join_ranks
from stylear.train.finite import require_finite_step
from stylear.train.inputs import check_shards, find_final_model
from stylear.train.lineage import describe_origin, describe_training
from stylear.train.losses import Preference, preference_loss
from stylear.train.metrics import Metrics, check_wandb
from stylear.train.optim import Optimisers
from stylear.train.pairs import list_pair_shards, read_manifest
from stylear.train.precision import autocast, hold_base, load_for_training
from stylear.train.preferences import PreferenceSet, list_corpus_preferences, open_preferences
from stylear.train.reference import hash_policy, open_reference_log_probs
from stylear.train.sampler import Sampler
from stylear.train.settings import DpoSettings
from stylear.train.trainable import (
    prepare_blocks,
    prepare_lora,
    seed_dropout,
    select_trainable,
    set_training,
)

LN_2 = math.log(2)  # the loss of kinds sigmoid and robust while policy and reference are equal
STALLED = 0.01  # a mean loss this close to ln 2 has not moved
STALL_STEPS, STALL_SHARE = 20, 5  # over at least so many steps, and a fifth of the run


def run(settings: DpoSettings) -> Path:
    """Train on preference pairs, or resume an interrupted run; returns the directory of the final model.

    Writes `settings.out`: settings.json, metrics.jsonl (log-probabilities in nats, summed over the codes of
    an image), tensorboard/, reference.json, checkpoints/ and final/. The loss of step 1 is ln 2 for kinds
    "sigmoid" and "robust", and `below_ln_2` is the distance from it. Warnings go to stderr and into the
    model's record.

    Raises CorpusError if a corpus has no usable preference pairs, SettingsChanged if `out` holds another
    run, UsageError if the device is not available, WeightsError if the model cannot be read. Source: DPO
    (arXiv 2305.18290); `losses` names those of the other kinds. TrainingError if a loss is not finite.
    """
    with join_ranks(settings.device) as ranks:
        return train(settings, ranks)


def train(settings: DpoSettings, ranks: Ranks) -> Path:
    """One rank's part of a run; returns the directory of the final model."""
    device = ranks.device
    check_wandb(settings)
    check_shards(settings.corpus)
    shards = (
        [shard for folder in settings.pairs for shard in list_pair_shards(folder)]
        if settings.pairs
        else list_corpus_preferences(settings.corpus)
    )
    source = find_final_model(settings.model)
    model = load_for_training(source, settings, device)
    policy_hash = hash_policy(model)
    hold_base(model, settings)  # the reference's too, so that the loss starts at ln 2
    with ranks.first_goes_first():
        training_run = checkpoint.open_run("dpo", settings, policy_hash)
    if training_run.final.is_dir():
        say(f"{training_run.root}: already trained")
        return training_run.final
    cache = settings.encoded or training_run.root / "encoded"
    with ranks.first_goes_first():
        styles = open_encoded(model, settings.corpus, "train", cache, features=settings.features)
        data = open_preferences(model, shards, styles, cache)
    size = min(settings.batch_size, len(data))
    slices = divide_batch(size, settings.accumulate, ranks)
    training = describe_preferences(settings, data, model)
    training["warnings"] += describe_off_policy(settings.pairs, policy_hash)
    for warning in training["warnings"]:
        say_warning(warning)
    references = (torch.zeros(len(data)), torch.zeros(len(data)))
    if settings.kind != "simpo":
        with ranks.first_goes_first():
            references = open_reference_log_probs(
                training_run, policy_hash, model, data, settings, cache, device
            )
    origin = describe_origin(model, settings, training)
    last_checkpoint = checkpoint.find_last_checkpoint(training_run)
    start = 0
    if last_checkpoint is not None:
        model, start = checkpoint.restore_model(last_checkpoint, model)
        say(f"resuming from step {start}")
    else:
        prepare_lora(model, settings)
    model.settings = replace(model.settings, base=origin)
    hold_base(model, settings)
    optimisers = Optimisers(select_trainable(model, settings.full), settings)
    if last_checkpoint is not None:
        checkpoint.restore_optimisers(last_checkpoint, optimisers)
    prepare_blocks(model, settings)
    set_training(model)
    sampler = Sampler([[len(data)]])
    with (
        Metrics(training_run, start, settings, is_first=ranks.is_first) as metrics,
        Bar("dpo", total=settings.steps, unit="steps") as bar,
    ):
        bar.skip(start)
        watch = StallWatch(settings, metrics.past)
        for step in range(start, settings.steps):
            began = perf_counter()
            picks = sampler.draw(settings.seed, step, size)
            figures = torch.zeros(len(Figures._fields), dtype=torch.float64)
            for number, own in enumerate(slices):
                part = picks[own].tolist()
                seed_dropout(settings.seed, step, ranks.rank * len(slices) + number)
                with autocast(settings.precision, device):
                    chosen, rejected = data.compute_log_probs(model, part)
                    outcome = preference_loss(
                        chosen,
                        rejected,
                        references[0][part].to(device),
                        references[1][part].to(device),
                        num_codes=data.codes.shape[-1],
                        beta=settings.beta,
                        kind=settings.kind,
                        label_smoothing=settings.label_smoothing,
                        simpo_margin=settings.simpo_margin,
                        length_normalised=settings.length_normalised,
                        chosen_nll=settings.chosen_nll,
                    )
                share = len(part) / size
                torch.autograd.backward(outcome.loss * share)
                figures += share * measure_outcome(outcome, chosen, rejected)
            totals = Figures(*ranks.sum(figures.tolist()))
            ranks.sum_gradients(optimisers.parameters)
            norm = optimisers.clip_gradients()
            require_finite_step(step + 1, totals.loss, norm, [data.keys[pick] for pick in picks])
            rate = optimisers.step(step)
            step_s = perf_counter() - began
            values = {
                "loss": totals.loss,
                "chosen_log_prob": totals.chosen_log_prob,
                "rejected_log_prob": totals.rejected_log_prob,
                "margin": totals.margin,
                "accuracy": totals.accuracy,
                "gradient_norm": norm,
                "lr": rate,
                "epoch": (step + 1) * size / len(data),
                "step_s": step_s,
                "pairs_per_s": size / step_s,
            }
            if settings.kind in ("sigmoid", "robust"):
                values["below_ln_2"] = LN_2 - totals.preference_term
                if watch.observe(values["below_ln_2"]):
                    say_warning(watch.describe())
            done = step + 1
            metrics.write(done, values)
            bar.advance(1, f"loss {values['loss']:.3f} margin {values['margin']:.3f}")
            if ranks.is_first and (done % settings.save_every == 0 or done == settings.steps):
                checkpoint.save_checkpoint(training_run, model, optimisers, done, settings.keep)
    if watch.has_warned:
        training["warnings"].append(watch.describe())
        model.settings = replace(model.settings, base=origin | {"training": training})
    if ranks.is_first:
        save_model(model.eval(), training_run.final)
    ranks.wait()
    return training_run.final


class Figures(NamedTuple):
    """The figures of a step in metrics.jsonl: means over the pairs of its batch."""

    loss: float
    preference_term: float
    chosen_log_prob: float
    rejected_log_prob: float
    margin: float
    accuracy: float


def measure_outcome(outcome: Preference, chosen: Tensor, rejected: Tensor) -> Tensor:
    """`Figures` of a part, whose log-probabilities are (B,), as a tensor in float64 on the CPU."""
    gap = outcome.chosen_reward - outcome.rejected_reward
    figures = Figures(
        outcome.loss.item(),
        outcome.preference_term.item(),
        chosen.mean().item(),
        rejected.mean().item(),
        gap.mean().item(),
        (gap > 0).float().mean().item(),
    )
    return torch.tensor(figures, dtype=torch.float64)


def divide_batch(size: int, accumulate: int, ranks: Ranks) -> list[slice]:
    """The positions of this rank's parts in a batch. Raises UsageError for more parts than pairs."""
    parts = ranks.world_size * accumulate
    return [
        find_rank_slice(size, ranks.rank * accumulate + number, parts)
        for number in range(accumulate)
    ]


class StallWatch:
    """Notices when the loss stays at ln 2, where the policy has not left the reference.

    It has stalled when its mean over the last steps is within STALLED of ln 2: over a fifth of the run, and
    over STALL_STEPS at least, not counting those of the warm-up.
    """

    def __init__(self, settings: DpoSettings, past: Sequence[Mapping[str, float]]) -> None:
        self.steps = max(STALL_STEPS, settings.steps // STALL_SHARE)
        self.warmup = settings.warmup
        self.distances: list[float] = []
        self.has_warned = False
        for line in past:
            self.observe(line.get("below_ln_2", LN_2))

    def observe(self, distance: float) -> bool:
        """Note a step's distance from ln 2; True the first time that the loss has stalled."""
        self.distances.append(distance)
        recent = self.distances[self.warmup :][-self.steps :]
        if self.has_warned or len(recent) < self.steps:
            return False
        self.has_warned = abs(sum(recent) / len(recent)) < STALLED
        return self.has_warned

    def describe(self) -> str:
        """The warning."""
        return (
            f"the loss has stayed within {STALLED} of ln 2 for {self.steps} steps: the model does not learn"
            " the preferences; raise lr or beta, or make pairs with a larger margin (stylear train pairs)"
        )


def describe_preferences(
    settings: DpoSettings, data: PreferenceSet, model: StyleModel
) -> dict[str, Any]:
    """The training record of the final model: settings, number of pairs, warnings."""
    record = describe_training(settings, len(data)) | {"warnings": []}
    captions = sorted(set(data.captions))
    lengths = [measure_prompt(model, c, is_styled=model.num_style_tokens > 0) for c in captions]
    if warning := describe_long_prompts(lengths, model.name):
        record["warnings"].append(warning)
    if data.without_style:
        record["warnings"].append(
            f"{data.without_style} preference pairs skipped: train/ has no image of their reference"
        )
    if data.equal_codes:
        record["warnings"].append(
            f"{data.equal_codes} preference pairs skipped: both images have the same codes"
        )
    if settings.batch_size > len(data):
        record["warnings"].append(
            f"batch_size {settings.batch_size} is more than the {len(data)} preference pairs;"
            " every step takes all of them once"
        )
    return record


def describe_off_policy(folders: Sequence[Path], policy_hash: str) -> list[str]:
    """Warnings about folders of on-policy pairs that another model than the starting one drew."""
    return [
        f"{folder}: its pictures were drawn by another model than the one that training starts from, so the"
        " pairs are off-policy"
        for folder in folders
        if read_manifest(folder)["policy_hash"] != policy_hash
    ]
