"""Train mini-vq: a VQGAN of 1.6 M parameters on 4x4 patches, 64 px to 8x8 codes.

    python -m stylear.mini.train_vq

Phase `pixels`: L1 + L2 on pixels, and a little on the difference of local texture energy. Phase
`textures` goes on from there with pixels compared at a half and a quarter of the resolution, and texture
energy weighing more: a texture then stays a texture and does not blur. Both have the commitment loss.
The codebook follows its latents by moving average (VQ-VAE-2, appendix A);
a code that nothing has used for a while restarts at a latent of the batch.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from scipy.fft import dctn
from torch import Tensor, nn

from stylear.console import Bar, say
from stylear.mini.card import write_card
from stylear.mini.drawings import Pictures, drawings, in_styles, jittered, joined, to_tensor
from stylear.model.vq import VQConfig, VQModel

CONFIG = VQConfig(
    embed_dim=16, num_embeddings=1024, z_channels=64, resolution=64, base_channels=48,
    channel_multiplier=(1, 2), num_res_blocks=1, norm_groups=16, patch=4,
)  # fmt: skip
DECAY = 0.97


def texture_filters(size: int = 4) -> Tensor:
    """The DCT-II basis of `size` x `size` patches without its constant: (size * size - 1, 1, size, size)."""
    units = torch.eye(size * size).reshape(-1, size, size)
    basis = torch.stack(
        [torch.from_numpy(dctn(unit.numpy(), type=3, norm="ortho")) for unit in units]
    )
    return basis[1:, None].float()


def texture_energy(pixels: Tensor, filters: Tensor) -> Tensor:
    """Root mean square response of each filter over 8x8 windows, per colour channel."""
    batch, channels, height, width = pixels.shape
    responses = F.conv2d(pixels.reshape(batch * channels, 1, height, width), filters, stride=2)
    return F.avg_pool2d(responses.square(), 4, stride=2).add(1e-4).sqrt()


def pixel_loss(rebuilt: Tensor, pixels: Tensor, phase: str) -> Tensor:
    """What a phase asks of the pixels (B, 3, H, W)."""
    error = rebuilt - pixels
    if phase == "pixels":
        return error.abs().mean() + error.square().mean()
    half, quarter = F.avg_pool2d(error, 2), F.avg_pool2d(error, 4)
    return 0.35 * error.abs().mean() + 0.5 * half.abs().mean() + quarter.abs().mean()


TEXTURE_WEIGHT = {"pixels": 0.5, "textures": 1.5}
PEAK_RATE = {"pixels": 2e-3, "textures": 1.5e-3}


class Codebook:
    """Moving averages that move the codes, and the revival of dead ones."""

    def __init__(self, model: VQModel) -> None:
        self.codes = model.quantize.embedding.weight
        self.codes.requires_grad_(False)
        self.counts = torch.ones(len(self.codes))
        self.sums = self.codes.detach().clone()
        self.ready = False

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        """latents: (N, D), codes: (N,). The first call starts the codebook at latents of the batch."""
        if not self.ready:
            picks = torch.randint(len(latents), (len(self.codes),), generator=generator)
            self.sums.copy_(latents[picks])
            self.codes.copy_(self.sums)
            self.ready = True
            return
        one_hot_counts = torch.bincount(codes, minlength=len(self.codes)).float()
        sums = torch.zeros_like(self.sums).index_add_(0, codes, latents)
        self.counts.mul_(DECAY).add_(one_hot_counts, alpha=1 - DECAY)
        self.sums.mul_(DECAY).add_(sums, alpha=1 - DECAY)
        dead = self.counts < 0.05
        picks = torch.randint(len(latents), (len(self.codes),), generator=generator)
        self.sums[dead], self.counts[dead] = latents[picks][dead], 1.0
        self.codes.copy_(self.sums / self.counts[:, None])


def train(
    out: Path,
    *,
    minutes: float,
    texture_minutes: float,
    batch_size: int,
    seed: int,
    copies: int,
    variants: int,
) -> None:
    """Train both phases, measure on held-out drawings, write config, weights and card."""
    started = time.monotonic()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    raw = drawings("train")
    styled = in_styles(raw, copies, variants, seed + 1)
    pictures = joined(*[raw] * max(1, copies // 3), styled)
    model = VQModel(CONFIG).train()
    weights = sum(p.numel() for p in model.parameters()) / 1e6
    say(f"mini-vq: {weights:.2f} M parameters, {len(pictures)} pictures")
    codebook = Codebook(model)
    steps = 0
    for phase, share in (("pixels", minutes), ("textures", texture_minutes)):
        steps += train_phase(model, codebook, pictures, phase, share, batch_size, generator)
    save(model, out)
    rebuilt_model = VQModel.from_pretrained(out)
    write_card(
        out,
        title="mini-vq",
        what="An image tokenizer (Chameleon's VQGAN on 4x4 patches): 64 px to 8x8 codes out of 1,024.",
        data="Mini corpus, split `train`, raw and in the training styles.",
        command=f"python -m stylear.mini.train_vq --minutes {minutes:g}"
        f" --texture-minutes {texture_minutes:g} --seed {seed}",
        minutes=(time.monotonic() - started) / 60,
        measured={**quality(rebuilt_model), "steps": steps},
    )


def train_phase(
    model: VQModel,
    codebook: Codebook,
    pictures: Pictures,
    phase: str,
    minutes: float,
    batch_size: int,
    generator: torch.Generator,
) -> int:
    """Train one phase for `minutes`; its steps."""
    started, done, step = time.monotonic(), 0.0, 0
    peak = PEAK_RATE[phase]
    filters = texture_filters()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.99), weight_decay=0.01)
    with Bar(f"mini-vq {phase}", unit="pictures") as bar:
        while done < 1.0:
            done = min(1.0, (time.monotonic() - started) / (60 * minutes))
            rate = peak * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * min(1.0, 1.5 * (1 - done)))
            for group in optimiser.param_groups:
                group["lr"] = rate
            chosen = torch.randint(len(pictures), (batch_size,), generator=generator)
            pixels = to_tensor(pictures.pixels[chosen.numpy()])
            if phase == "pixels":  # a texture keeps its place in the picture afterwards
                pixels = jittered(pixels, generator)
            with torch.autocast("cpu", torch.bfloat16):
                output = model(pixels)
            rebuilt = output.reconstruction.float()
            texture = F.l1_loss(texture_energy(rebuilt, filters), texture_energy(pixels, filters))
            loss = pixel_loss(rebuilt, pixels, phase) + TEXTURE_WEIGHT[phase] * texture
            loss = loss + output.loss.float()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            latents = (
                output.latents.detach().float().permute(0, 2, 3, 1).reshape(-1, CONFIG.embed_dim)
            )
            codebook.update(latents, output.codes.reshape(-1), generator)
            step += 1
            bar.advance(batch_size, f"loss {loss.item():.4f} texture {texture.item():.4f}")
    return step


def save(model: VQModel, out: Path) -> None:
    """`config.json` and fp16 `vqgan.safetensors`, as `VQModel.from_pretrained` reads them."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(
        json.dumps({"vq_config": model.config.to_dict()}, indent=2) + "\n"
    )
    tensors = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, out / "vqgan.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def quality(model: VQModel) -> dict[str, float]:
    """Mean PSNR in dB (peak 2, pixels in [-1, 1]) on held-out drawings, raw and in training styles, and
    the share of codes in use."""
    held = drawings("val")
    measured: dict[str, float] = {"held-out drawings": len(held)}
    used: set[int] = set()
    for name, pictures in {"raw": held, "styled": in_styles(held, 2, 24, seed=99)}.items():
        pixels = to_tensor(pictures.pixels)
        codes = model.encode(pixels)
        error = (model.decode(codes).clamp(-1, 1) - pixels).square().mean((1, 2, 3))
        measured[f"PSNR of held-out drawings, {name} (dB)"] = (
            (10 * torch.log10(4 / error)).mean().item()
        )
        used |= set(codes.flatten().tolist())
    measured["share of codes in use there"] = len(used) / model.config.num_embeddings
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description="Train mini-vq.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models" / "mini-vq")
    parser.add_argument("--minutes", type=float, default=11.0, help="of the phase `pixels`")
    parser.add_argument(
        "--texture-minutes", type=float, default=6.0, help="of the phase `textures`"
    )
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--variants", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    train(options.pop("out"), **options)


if __name__ == "__main__":
    main()
