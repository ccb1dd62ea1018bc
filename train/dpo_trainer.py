"""Direct preference optimisation (DPO) against the frozen model that training starts from.

Reference log-probabilities are computed once. Style tokens come from a training image of the same reference,
without noise, so that policy and reference have the same condition and the loss starts at ln 2.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylear.console import Bar, say, say_warning
from stylear.curate.corpus.no_preferences import explain_no_preferences_in
from stylear.curate.corpus.shards import shard_paths, tar_samples
from stylear.device import pick_device
from stylear.errors import CorpusError
from stylear.model.chameleon import describe_lineage, save_model
from stylear.model.layout import collate
from stylear.model.open import load_model
from stylear.model.style_model import StyleModel
from stylear.train import checkpoint
from stylear.train.checkpoint import Metrics
from stylear.train.data import EncodedSet, build_example, forward_logits, open_encoded
from stylear.train.encode import decode_picture, picture_to_pixels
from stylear.train.losses import preference_loss, sequence_log_probs
from stylear.train.optim import Optimisers
from stylear.train.pairs import read_pairs
from stylear.train.settings import DpoSettings
from stylear.train.sft_trainer import (
    autocast,
    check_shards,
    describe_origin,
    describe_training,
    find_final_model,
    prepare_lora,
    select_trainable,
    set_training,
)

EXTS = ("png", "jpg", "webp")


class PreferenceSet:
    """Encoded preference pairs in memory: prompts, codes of both images, style features."""

    def __init__(
        self, model: StyleModel, samples: Sequence[dict[str, bytes]], styles: EncodedSet
    ) -> None:
        self.model = model
        self.captions: list[str] = []
        chosen: list[Tensor] = []
        rejected: list[Tensor] = []
        features: list[Tensor] = []
        first = {group: int(numbers[0]) for group, numbers in styles.groups.items()}
        self.without_style = 0
        for sample in samples:
            record = json.loads(sample["json"])
            row = first.get(record["reference"])
            if row is None and styles.features is not None:
                self.without_style += 1  # no training image of this reference, so no condition
                continue
            self.captions.append(str(record["caption"]))
            chosen.append(encode_member(model, sample, "chosen"))
            rejected.append(encode_member(model, sample, "rejected"))
            if styles.features is not None and row is not None:
                features.append(styles.features[row])
        if not self.captions:
            raise CorpusError(
                "preference pairs: expected some with a training image of their reference to take the style"
                f" from, found none ({self.without_style} without one)",
                hint="lower the thresholds of the filter, then `stylear curate run RECIPE --out CORPUS`",
            )
        self.codes = torch.stack([torch.stack(chosen), torch.stack(rejected)])  # (2, N, L)
        self.features = torch.stack(features) if features else None

    def __len__(self) -> int:
        return len(self.captions)

    def compute_log_probs(self, model: StyleModel, picks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B,) of chosen and rejected images, from one forward pass."""
        height, width = model.grid
        examples = [
            build_example(model, self.captions[pick], self.codes[side, pick].view(height, width))
            for side in (0, 1)
            for pick in picks
        ]
        tokens = None
        if self.features is not None and model.resampler is not None:
            style_tokens = model.resampler(self.features[list(picks)].float().to(model.device))
            tokens = torch.cat([style_tokens, style_tokens])
        batch = collate(examples, model.layout.pad).to(model.device)
        logits = forward_logits(model, batch, tokens)
        sums = sequence_log_probs(logits, batch.codes, batch.code_rows, len(examples))
        return sums[: len(picks)], sums[len(picks) :]


def read_preference_samples(corpora: Sequence[Path]) -> list[dict[str, bytes]]:
    """The preference samples of all corpora. Raises CorpusError if a corpus has none."""
    samples: list[dict[str, bytes]] = []
    for corpus in corpora:
        shards = shard_paths(corpus / "preferences")
        if not shards:
            reason, remedy = explain_no_preferences_in(corpus)
            raise CorpusError(
                f"{corpus}: expected preference pairs, found none: {reason}", hint=remedy
            )
        samples += [sample for shard in shards for _, sample in tar_samples(shard)]
    return samples


@torch.inference_mode()
def encode_member(model: StyleModel, sample: dict[str, bytes], side: str) -> Tensor:
    """Codes (L,) of the `chosen` or `rejected` image of a sample."""
    data = next(sample[f"{side}.{ext}"] for ext in EXTS if f"{side}.{ext}" in sample)
    pixels = picture_to_pixels(decode_picture(data), model.vq.config.resolution)[None]
    return model.vq.encode(pixels.to(model.device)).flatten().cpu()


def run(settings: DpoSettings) -> Path:
    """Train on preference pairs, or resume an interrupted run; returns the directory of the final model.

    Writes `settings.out`: settings.json, metrics.jsonl (log-probabilities in nats, summed over the codes of
    an image, or per code if `length_normalised`), tensorboard/, checkpoints/ and final/. The loss of step 1
    is ln 2 for kind "sigmoid". Warnings go to stderr and into the model's record.

    Raises CorpusError if a corpus has no preference pairs, SettingsChanged if `out` holds another run,
    UsageError if the device is not available, WeightsError if the model cannot be read. Sources: DPO (arXiv
    2305.18290), IPO (arXiv 2310.12036), SimPO (arXiv 2405.14734).
    """
    device = pick_device(settings.device)
    check_shards(settings.corpus)
    samples = (
        [sample for folder in settings.pairs for sample in read_pairs(folder)]
        if settings.pairs
        else read_preference_samples(settings.corpus)
    )
    source = find_final_model(settings.model)
    base = load_model(source, device)
    training_run = checkpoint.open_run(
        "dpo", settings, str(describe_lineage(base).get("sha256", ""))
    )
    if training_run.final.is_dir():
        say(f"{training_run.root}: already trained")
        return training_run.final
    cache = settings.encoded or training_run.root / "encoded"
    data = PreferenceSet(
        base, samples, open_encoded(base, settings.corpus, "train", cache, copies=1)
    )
    size = min(settings.batch_size, len(data))
    training = describe_preferences(settings, data)
    for warning in training["warnings"]:
        say_warning(warning)
    references = compute_reference_log_probs(base, data, size, settings.precision, device)
    last_checkpoint = checkpoint.find_last_checkpoint(training_run)
    start = 0
    if last_checkpoint is not None:
        model, start = checkpoint.restore_model(last_checkpoint, device)
        say(f"resuming from step {start}")
    else:
        model = load_model(source, device)
        prepare_lora(model, settings)
    model.settings = replace(model.settings, base=describe_origin(base, settings, training))
    optimisers = Optimisers(select_trainable(model, settings.full), settings)
    if last_checkpoint is not None:
        checkpoint.restore_optimisers(last_checkpoint, optimisers)
    set_training(model)
    length = data.codes.shape[-1] if settings.length_normalised else 1
    with (
        Metrics(training_run, start) as metrics,
        Bar("dpo", total=settings.steps, unit="steps") as bar,
    ):
        bar.advance(start)
        for step in range(start, settings.steps):
            picks = draw_pair_indices(settings.seed, step, size, len(data))
            with autocast(settings.precision, device):
                chosen, rejected = data.compute_log_probs(model, picks)
                outcome = preference_loss(
                    chosen,
                    rejected,
                    references[0][picks].to(device),
                    references[1][picks].to(device),
                    beta=settings.beta,
                    kind=settings.kind,
                    length=length,
                    chosen_nll=settings.chosen_nll,
                )
            torch.autograd.backward(outcome.loss)
            norm, rate = optimisers.step(step)
            gap = outcome.chosen_reward - outcome.rejected_reward
            values = {
                "loss": outcome.loss.item(),
                "chosen_log_prob": chosen.mean().item(),
                "rejected_log_prob": rejected.mean().item(),
                "margin": gap.mean().item(),
                "accuracy": (gap > 0).float().mean().item(),
                "gradient_norm": norm,
                "lr": rate,
                "epoch": (step + 1) * size / len(data),
            }
            done = step + 1
            metrics.write(done, values)
            bar.advance(1, f"loss {values['loss']:.3f} margin {values['margin']:.3f}")
            if done % settings.save_every == 0 or done == settings.steps:
                checkpoint.save_checkpoint(training_run, model, optimisers, done, settings.keep)
    save_model(model.eval(), training_run.final)
    return training_run.final


def describe_preferences(settings: DpoSettings, data: PreferenceSet) -> dict[str, Any]:
    """The training record of the final model: settings, number of pairs, warnings."""
    record = describe_training(settings, len(data)) | {"warnings": []}
    if data.without_style:
        record["warnings"].append(
            f"{data.without_style} preference pairs skipped: train/ has no image of their reference"
        )
    if settings.batch_size > len(data):
        record["warnings"].append(
            f"batch_size {settings.batch_size} is more than the {len(data)} preference pairs;"
            " every step takes all of them once"
        )
    return record


@torch.no_grad()
def compute_reference_log_probs(
    base: StyleModel, data: PreferenceSet, size: int, precision: str, device: str
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N,) of every chosen and rejected image under the frozen model."""
    chosen: list[Tensor] = []
    rejected: list[Tensor] = []
    for start in range(0, len(data), size):
        picks = list(range(start, min(len(data), start + size)))
        with autocast(precision, device):
            pair = data.compute_log_probs(base, picks)
        chosen.append(pair[0].cpu())
        rejected.append(pair[1].cpu())
    return torch.cat(chosen), torch.cat(rejected)


def draw_pair_indices(seed: int, step: int, size: int, total: int) -> list[int]:
    """The pair indices of a step; each epoch is shuffled anew."""
    picks: list[int] = []
    for position in range(step * size, (step + 1) * size):
        epoch, index = divmod(position, total)
        picks.append(int(np.random.default_rng([seed, epoch]).permutation(total)[index]))
    return picks
