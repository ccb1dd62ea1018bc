"""Group relative policy optimisation (GRPO): a model learns from the scores of its own pictures.

At every step the model draws several pictures of some prompts, frozen scorers rate them, and those that are
better than the others of their prompt become more likely. J jobs, S samples of a job, L codes of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from stylear.console import Bar, say
from stylear.device import pick_device
from stylear.model.packing import pack_batch
from stylear.model.save import save_model
from stylear.model.style_model import StyleModel
from stylear.train import checkpoint
from stylear.train.data import EncodedSet, build_prompt, forward_logits, open_encoded
from stylear.train.distributed import require_one_process
from stylear.train.finite import require_finite_step
from stylear.train.inputs import check_shards, find_final_model
from stylear.train.lineage import describe_origin, describe_training
from stylear.train.losses import group_advantages, grpo_loss
from stylear.train.metrics import Metrics, check_wandb
from stylear.train.optim import Optimisers
from stylear.train.precision import autocast, hold_base, load_for_training
from stylear.train.reference import FrozenStart, hash_policy
from stylear.train.rewards import choose_scorers, open_scorers
from stylear.train.rollout import (
    Job,
    Sampling,
    StylePictures,
    decode_in_batches,
    draw_codes,
    plan_jobs,
)
from stylear.train.settings import GrpoSettings
from stylear.train.trainable import (
    prepare_blocks,
    prepare_lora,
    seed_dropout,
    select_trainable,
    set_training,
)


def run(settings: GrpoSettings) -> Path:
    """Train on the scores of own pictures, or resume an interrupted run; returns the final model's directory.

    Writes `settings.out`: settings.json, metrics.jsonl (`reward`, the mean score; `kl`, nats per code from
    the frozen start; `clipped`, the share of clipped codes), tensorboard/, checkpoints/ and final/. A step
    depends on the model before it and on (seed, step), so that a resumed run gives the same weights.

    Raises CorpusError if the corpora have no stylized pairs, SettingsChanged if `out` holds another run,
    UsageError if the device is not available, WeightsError if a model cannot be read. Source: GRPO (arXiv
    2402.03300), here on image codes and with guidance in the policy.
    """
    require_one_process("train grpo")
    device = pick_device(settings.device)
    check_wandb(settings)
    check_shards(settings.corpus)
    model = load_for_training(find_final_model(settings.model), settings, device)
    training_run = checkpoint.open_run("grpo", settings, hash_policy(model))
    if training_run.final.is_dir():
        say(f"{training_run.root}: already trained")
        return training_run.final
    cache = settings.encoded or training_run.root / "encoded"
    data = open_encoded(model, settings.corpus, "train", cache, features=settings.features)
    jobs = plan_jobs(data, settings.steps * settings.prompts, settings.seed)
    scorers = open_scorers(choose_scorers(settings, settings.corpus), device)
    styles = StylePictures(model, data, settings.style_images)
    training = describe_training(settings, len(data)) | {"scorers": scorers.describe()}
    origin = describe_origin(model, settings, training | {"warnings": []})
    prepare_lora(model, settings)
    hold_base(model, settings)
    prepare_blocks(model, settings)
    named = list(select_trainable(model, settings.full))
    start_weights = FrozenStart([parameter for _, parameter in named])
    optimisers = Optimisers(named, settings)
    start = 0
    last_checkpoint = checkpoint.find_last_checkpoint(training_run)
    if last_checkpoint is not None:
        restored, start = checkpoint.restore_model(last_checkpoint, model)
        trained = dict(select_trainable(restored, settings.full))
        for name, parameter in named:
            parameter.data.copy_(trained[name])
        checkpoint.restore_optimisers(last_checkpoint, optimisers)
        say(f"resuming from step {start}")
    model.settings = replace(model.settings, base=origin)
    sampling = Sampling(
        seed=settings.seed,
        samples=settings.samples,
        guidance=settings.guidance,
        top_k=model.layout.num_codes,  # all codes, so that the samples are the policy's own
        temperature=settings.temperature,
        batch_size=settings.batch_size,
    )
    with (
        Metrics(training_run, start, settings) as metrics,
        Bar("grpo", total=settings.steps, unit="steps") as bar,
    ):
        bar.skip(start)
        for step in range(start, settings.steps):
            part = jobs[step * settings.prompts : (step + 1) * settings.prompts]
            model.eval()
            codes = draw_codes(
                model, data, part, sampling
            ).clone()  # clones can be used in backward
            pictures = decode_in_batches(model, codes, settings.batch_size)
            rewards = scorers.score(
                pictures, [job.caption for job in part], [styles.of(job.group) for job in part]
            )
            advantages = group_advantages(rewards).flatten().to(device)
            drawn = [job for job in part for _ in range(settings.samples)]
            chunks = torch.arange(len(drawn)).split(settings.batch_size)  # type: ignore[no-untyped-call]
            sampler = score_chunks(model, data, drawn, codes, chunks, settings, device)
            with start_weights.swapped_in():  # outside autocast, which caches cast weights
                reference = score_chunks(model, data, drawn, codes, chunks, settings, device)
            set_training(model)
            for update in range(settings.updates):
                total = kl = clipped = 0.0
                for number, (chunk, old, frozen) in enumerate(
                    zip(chunks, sampler, reference, strict=True)
                ):
                    seed_dropout(settings.seed, step, update * len(chunks) + number)
                    with autocast(settings.precision, device):
                        new = compute_log_probs(model, data, drawn, codes, chunk, settings)
                    outcome = grpo_loss(
                        new,
                        old,
                        frozen,
                        advantages[chunk],
                        clip=settings.clip,
                        kl_weight=settings.kl_weight,
                    )
                    share = len(chunk) / len(drawn)
                    torch.autograd.backward(outcome.loss * share)
                    total += outcome.loss.item() * share
                    kl += outcome.kl.item() * share
                    clipped += outcome.clipped.item() * share
                norm = optimisers.clip_gradients()
                require_finite_step(step + 1, total, norm, [job.caption for job in part])
                rate = optimisers.step(step)
            done = step + 1
            values = {"loss": total, "reward": rewards.mean().item(), "kl": kl, "clipped": clipped}
            values["reward_std"] = rewards.std(dim=1, correction=0).mean().item()
            metrics.write(done, values | {"gradient_norm": norm, "lr": rate})
            bar.advance(1, f"reward {values['reward']:.3f} kl {kl:.4f}")
            if done % settings.save_every == 0 or done == settings.steps:
                checkpoint.save_checkpoint(training_run, model, optimisers, done, settings.keep)
    save_model(model.eval(), training_run.final)
    return training_run.final


@torch.no_grad()
def score_chunks(
    model: StyleModel,
    data: EncodedSet,
    drawn: Sequence[Job],
    codes: Tensor,
    chunks: Sequence[Tensor],
    settings: GrpoSettings,
    device: str,
) -> list[Tensor]:
    """`compute_log_probs` of every chunk of pictures, without gradients."""
    with autocast(settings.precision, device):
        return [compute_log_probs(model, data, drawn, codes, c, settings) for c in chunks]


def compute_log_probs(
    model: StyleModel,
    data: EncodedSet,
    drawn: Sequence[Job],
    codes: Tensor,
    picks: Tensor,
    settings: GrpoSettings,
) -> Tensor:
    """Log-probabilities per code (B, L), in fp32, with the guidance and temperature of the samples.

    `drawn` are the jobs of `codes` (J S, h, w), and `picks` (B,) the pictures of this batch.
    """
    jobs = [drawn[index] for index in picks.tolist()]
    own = codes[picks.to(codes.device)].cpu()
    prompts = [build_prompt(model, job.caption) for job in jobs]
    is_guided = settings.guidance != 1
    if is_guided:
        prompts += [model.layout.null_prompt(prompt) for prompt in prompts]
    tokens = None
    if model.resampler is not None:
        tokens = model.resampler(data.read_features([job.row for job in jobs]).to(model.device))
    rows = own.repeat(len(prompts) // len(jobs), 1, 1)
    batch = pack_batch(model.layout, prompts, rows).to(model.device)
    logits = forward_logits(model, batch, tokens).float().view(len(prompts), own[0].numel(), -1)
    if is_guided:
        conditional, unconditional = logits.chunk(2)
        logits = unconditional + settings.guidance * (conditional - unconditional)
    log_probs = (logits / settings.temperature).log_softmax(dim=-1)
    indices = own.flatten(1).to(log_probs.device)
    return log_probs.gather(-1, indices[..., None])[..., 0]
