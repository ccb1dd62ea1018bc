"""The loop that trains mini-ar and mini-stylear: packed batches, a compiled step, exact resume.

Step n draws everything from (seed, n). The learning rate warms up, stays, and falls over the last part
(warmup-stable-decay), so that a run can be lengthened from any checkpoint before its decay.

B batch, T tokens, N codes of a picture, K style tokens, D the decoder's width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylear.console import Bar
from stylear.mini import checkpoint
from stylear.model.transformer import Decoder

WARMUP_STEPS = 100
DECAY_SHARE = 0.25


@dataclass(frozen=True)
class StyleInput:
    """What becomes style tokens: features (B, patches, W) of all rows, and noise (B, K, D) to add.

    Only the rows marked in `styled` (B,) use theirs.
    """

    features: Tensor
    noise: Tensor
    styled: Tensor


@dataclass(frozen=True)
class PackedBatch:
    """A batch ready for the decoder."""

    ids: Tensor  # (B, T)
    columns: Tensor  # (B, N): where the hidden state stands that predicts a code
    codes: Tensor  # (B, N)
    style: StyleInput | None = None


def code_loss(decoder: Decoder, resampler: nn.Module | None, batch: PackedBatch) -> Tensor:
    """Mean cross entropy of the image codes, nats a code."""
    embeds = decoder.embed(batch.ids)
    if resampler is not None and batch.style is not None:
        tokens = resampler(batch.style.features) + batch.style.noise
        count = tokens.shape[1]  # the template puts them right behind <s>
        styled = batch.style.styled[:, None, None]
        tokens = torch.where(styled, tokens.to(embeds.dtype), embeds[:, 1 : 1 + count])
        embeds = torch.cat([embeds[:, :1], tokens, embeds[:, 1 + count :]], 1)
    hidden = decoder(embeds)
    rows = batch.columns[..., None].expand(-1, -1, hidden.shape[-1])
    logits = decoder.image_logits(hidden.gather(1, rows))
    return F.cross_entropy(logits.float().flatten(0, 1), batch.codes.flatten())


def corrupt_codes(codes: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Codes (B, N) of which a share was replaced by codes of the batch drawn at random.

    The share is drawn for each row, from 0 to `most`. A decoder that predicts the true codes from these
    goes on sensibly after a code that it has sampled wrongly.
    """
    device = codes.device
    share = most * torch.rand(len(codes), 1, generator=generator, device=device)
    wrong = torch.rand(codes.shape, generator=generator, device=device) < share
    others = torch.randint(codes.numel(), codes.shape, generator=generator, device=device)
    return torch.where(wrong, codes.flatten()[others], codes)


def rate_scale(step: int, steps: int) -> float:
    """Share of the peak learning rate: linear warm-up, constant, linear decay to a 50th."""
    decay = max(1, int(steps * DECAY_SHARE))
    left = min(1.0, (steps - step) / decay)
    return min(1.0, (step + 1) / WARMUP_STEPS) * (0.02 + 0.98 * left)


def optimizers(named: Iterable[tuple[str, nn.Parameter]], lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the decoder's layers, AdamW for the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in named:
        inner = parameter.ndim == 2 and ".layers." in name and "lora_" not in name
        (matrices if inner else others).append(parameter)
    found: list[torch.optim.Optimizer] = []
    if others:
        found.append(torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.05))
    if matrices:
        found.append(
            torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
        )
    return found


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


@dataclass(frozen=True)
class Progress:
    """What a run has done: its steps, the seconds of training over all sittings, the mean of late losses."""

    steps: int
    seconds: float
    loss: float


def train(
    decoder: Decoder,
    resampler: nn.Module | None,
    draw: Callable[[torch.Generator], PackedBatch],
    *,
    work: Path,
    steps: int,
    lr: float,
    seed: int = 0,
    save_every: int = 250,
    compiled: bool = True,
) -> Progress:
    """Train what requires gradients for `steps`, resuming from the checkpoint in `work`.

    `compiled` needs a C++ compiler on a CPU; it is worth 1.3 times the speed there.
    """
    modules = nn.ModuleDict({"decoder": decoder})
    if resampler is not None:
        modules["resampler"] = resampler
    named = [(name, p) for name, p in modules.named_parameters() if p.requires_grad]
    parameters = [parameter for _, parameter in named]
    parts = optimizers(named, lr)
    device = next(decoder.parameters()).device
    path, tensors = work / checkpoint.NAME, dict(named)
    step, seconds = checkpoint.resume(path, tensors, parts)
    late = 0.0
    loss_of = torch.compile(code_loss) if compiled else code_loss
    decoder.train()
    started = time.monotonic() - seconds
    with Bar(work.name, total=steps, unit="steps") as bar:
        bar.skip(step)
        while step < steps:
            batch = draw(torch.Generator(device).manual_seed(seed * 1_000_003 + step))
            with torch.autocast(device.type, torch.bfloat16):
                loss = loss_of(decoder, resampler, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            scale = rate_scale(step, steps)
            for part in parts:
                set_rate(part, lr * scale)
                part.step()
                part.zero_grad(set_to_none=True)
            late = 0.99 * late + 0.01 * loss.item() if late else loss.item()
            step += 1
            bar.advance(1, f"loss {late:.3f}")
            if step % save_every == 0 or step == steps:
                spent = time.monotonic() - started
                checkpoint.save(path, tensors, parts, step=step, seconds=spent)
    decoder.eval()
    return Progress(steps, time.monotonic() - started, late)
