"""Train mini-vq: a VQGAN of 2.8 M parameters on 2x2 patches, 64 px to 16x16 codes.

    python -m stylear.mini.train_vq

L1 + L2 on pixels, half as much on the difference of local texture energy, and the commitment loss. The
codebook follows its latents by moving average (VQ-VAE-2, appendix A); a code that nothing has used for a
while restarts at a latent of the batch. Stopped, it goes on from its last checkpoint in mini-build/.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from scipy.fft import dctn
from torch import Tensor, nn

from stylear.console import Bar, say
from stylear.device import pick_device
from stylear.mini import checkpoint
from stylear.mini.card import hardware, write_card
from stylear.mini.drawings import drawings, in_styles, jitter, to_tensor
from stylear.mini.examples import draw_rows, training_pictures
from stylear.mini.options import make_parser
from stylear.mini.pretraining import set_rate
from stylear.model.vq import VQConfig, VQModel

CONFIG = VQConfig(
    embed_dim=8, num_embeddings=1024, z_channels=64, resolution=64, base_channels=64,
    channel_multiplier=(1, 2), num_res_blocks=1, norm_groups=16, patch=2,
)  # fmt: skip
DECAY = 0.97
PEAK_RATE, WARMUP_STEPS = 1e-3, 100
TEXTURE_WEIGHT = 0.5
RAW_SHARE = 0.3


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


class Codebook:
    """Moving averages that move the codes, and the revival of dead ones."""

    def __init__(self, model: VQModel) -> None:
        self.codes = model.quantize.embedding.weight
        self.codes.requires_grad_(False)
        self.counts = torch.ones(len(self.codes), device=self.codes.device)
        self.sums = self.codes.detach().clone()
        self.ready = False

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        """latents: (N, D), codes: (N,). The first call starts the codebook at latents of the batch."""
        if not self.ready:
            picks = torch.randint(
                len(latents), (len(self.codes),), generator=generator, device=latents.device
            )
            self.sums.copy_(latents[picks])
            self.codes.copy_(self.sums)
            self.ready = True
            return
        one_hot_counts = torch.bincount(codes, minlength=len(self.codes)).float()
        sums = torch.zeros_like(self.sums).index_add_(0, codes, latents)
        self.counts.mul_(DECAY).add_(one_hot_counts, alpha=1 - DECAY)
        self.sums.mul_(DECAY).add_(sums, alpha=1 - DECAY)
        dead = self.counts < 0.05
        picks = torch.randint(
            len(latents), (len(self.codes),), generator=generator, device=latents.device
        )
        self.sums[dead], self.counts[dead] = latents[picks][dead], 1.0
        self.codes.copy_(self.sums / self.counts[:, None])


def train(
    out: Path, *, work: Path, steps: int, batch_size: int, seed: int, limit: int | None
) -> None:
    """Train, measure on held-out drawings, write config, weights and card."""
    device = pick_device("auto")
    torch.manual_seed(seed)
    pictures = training_pictures(limit)
    pixels = torch.from_numpy(pictures.pixels).to(device)
    num_raw = pictures.styles.count("")
    model = VQModel(CONFIG).to(device).train()
    say(f"mini-vq: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    codebook, filters = Codebook(model), texture_filters().to(device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    path = work / "vq" / checkpoint.NAME
    tensors = {**model.state_dict(), "ema.counts": codebook.counts, "ema.sums": codebook.sums}
    step, seconds = checkpoint.resume(path, tensors, [optimizer])
    codebook.ready = step > 0
    started = time.monotonic() - seconds
    with Bar("mini-vq", total=steps, unit="steps") as bar:
        bar.skip(step)
        while step < steps:
            generator = torch.Generator(device).manual_seed(seed * 1_000_003 + step)
            rows = draw_rows(num_raw, len(pixels), batch_size, RAW_SHARE, generator)
            batch = jitter(to_tensor(pixels[rows]), generator)
            with torch.autocast(device, torch.bfloat16):
                output = model(batch)
            loss = reconstruction_loss(output.reconstruction.float(), batch, filters)
            loss = loss + output.loss.float()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            set_rate(optimizer, PEAK_RATE * rate_scale(step, steps))
            optimizer.step()
            latents = output.latents.detach().float().permute(0, 2, 3, 1).flatten(0, 2)
            codebook.update(latents, output.codes.flatten(), generator)
            step += 1
            bar.advance(1, f"loss {loss.item():.4f}")
            if step % 200 == 0 or step == steps:
                spent = time.monotonic() - started
                checkpoint.save(path, tensors, [optimizer], step=step, seconds=spent)
    save(model.cpu(), out)
    write_card(
        out,
        title="mini-vq",
        what="An image tokenizer (Chameleon's VQGAN on 2x2 patches): 64 px to 16x16 codes out of 1,024.",
        data="Mini corpus, split `train`, raw and in the training styles.",
        command="python -m stylear.mini.train_vq",
        hardware=hardware(device),
        seconds=time.monotonic() - started,
        measured={**quality(VQModel.from_pretrained(out)), "steps": steps},
    )


def reconstruction_loss(rebuilt: Tensor, pixels: Tensor, filters: Tensor) -> Tensor:
    """L1 + L2 of pixels (B, 3, H, W), and L1 of texture energy."""
    error = rebuilt - pixels
    texture = F.l1_loss(texture_energy(rebuilt, filters), texture_energy(pixels, filters))
    return error.abs().mean() + error.square().mean() + TEXTURE_WEIGHT * texture


def rate_scale(step: int, steps: int) -> float:
    """Share of the peak rate: warm-up, constant, linear decay to a 50th over the last five sevenths."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * (0.02 + 0.98 * min(1.0, 1.4 * (1 - step / steps)))


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
    parser = make_parser("mini-vq", steps=1650, batch_size=128)
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
