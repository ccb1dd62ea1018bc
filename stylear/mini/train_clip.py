"""Train mini-clip: a CLIP of 2 M parameters on the mini corpus, raw and in the training styles.

    python -m stylear.mini.train_clip --out stylear/mini/models/mini-clip

Contrastive image-text loss with several positives a caption, plus a supervised contrastive loss that
draws pictures of the same style together in a projection of the penultimate patch features, because those
features are what the style tokens are made from. That projection is thrown away after training. Stopped,
it goes on from its last checkpoint in mini-build/.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylear.console import Bar, say
from stylear.device import pick_device
from stylear.encoders.clip import ClipEncoder, save_clip
from stylear.mini import checkpoint
from stylear.mini.card import hardware, write_card
from stylear.mini.drawings import drawings, jitter, to_tensor
from stylear.mini.examples import FAMILIES, Examples, named_style, training_pictures
from stylear.mini.options import make_parser
from stylear.mini.pretraining import set_rate
from stylear.mini.words import clip_tokenizer

CONTEXT = 20
PEAK_RATE, WARMUP_STEPS = 2e-3, 100
RAW_SHARE, NAMED_SHARE = 0.3, 0.5
MEAN = STD = (0.5, 0.5, 0.5)


def config(vocab_size: int) -> dict[str, Any]:
    """The open_clip configuration."""
    return {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {
                "image_size": 64, "layers": 4, "width": 160, "head_width": 32, "patch_size": 8,
            },
            "text_cfg": {
                "context_length": CONTEXT, "vocab_size": vocab_size, "width": 128, "heads": 4, "layers": 3,
                "hf_tokenizer_name": "mini-clip", "pool_type": "eos", "eos_id": 2, "pad_id": 0,
            },
        },
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"},
    }  # fmt: skip


def same_style_loss(features: Tensor, styles: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, eq. 2) over the pictures that have a style.

    features: (B, D) L2-normalised; styles: (B,) ids, -1 = none. 0 when no two pictures share a style.
    """
    has = styles >= 0
    features, styles = features[has], styles[has]
    others = ~torch.eye(len(styles), dtype=torch.bool, device=styles.device)
    positives = (styles[:, None] == styles[None]) & others
    logits = (features @ features.T / temperature).masked_fill(~others, -1e4)
    log_probs = logits - logits.logsumexp(1, keepdim=True)
    rows = positives.any(1)
    if not bool(rows.any()):
        return features.sum() * 0.0
    return -((log_probs * positives).sum(1)[rows] / positives.sum(1)[rows]).mean()


def caption_loss(similarities: Tensor, positives: Tensor) -> Tensor:
    """Contrastive loss in both directions with several positives: a caption's pictures are not its negatives.

    similarities: (B, B), image i against text j, scaled; positives: (B, B) bool, at least one in each
    row and column. Each row's targets share its probability (Khosla et al. 2020, L_out).
    """
    targets = positives.float()
    images = (targets / targets.sum(1, keepdim=True)) * similarities.log_softmax(1)
    texts = (targets / targets.sum(0, keepdim=True)) * similarities.log_softmax(0)
    return -0.5 * (images.sum(1).mean() + texts.sum(0).mean())


def train(
    out: Path, *, work: Path, steps: int, batch_size: int, seed: int, limit: int | None
) -> None:
    """Train, measure on held-out hands, write the open_clip directory and its card."""
    import open_clip

    device = pick_device("auto")
    torch.manual_seed(seed)
    pictures = training_pictures(limit)
    examples = Examples.of(pictures, torch.zeros(len(pictures), 1), device)
    pixels = torch.from_numpy(pictures.pixels).to(device)
    captions = examples.captions
    tokenizer = clip_tokenizer(captions)
    settings = config(tokenizer.get_vocab_size())
    model = open_clip.model.CLIP(
        embed_dim=settings["model_cfg"]["embed_dim"],
        vision_cfg=settings["model_cfg"]["vision_cfg"],
        text_cfg=settings["model_cfg"]["text_cfg"],
    ).to(device)
    say(f"mini-clip: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    tokenizer.enable_truncation(CONTEXT)
    tokenizer.enable_padding(length=CONTEXT, pad_id=0, pad_token="<pad>")
    texts = [*captions, *(named_style(text, family) for family in FAMILIES for text in captions)]
    tokens = torch.tensor([row.ids for row in tokenizer.encode_batch(texts)], device=device)
    penultimate: list[Tensor] = []
    hook = model.visual.transformer.resblocks[-2].register_forward_hook(
        lambda _m, _i, y: penultimate.append(y)
    )
    head = nn.Linear(160, 64).to(device)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.2)
    path = work / "clip" / checkpoint.NAME
    tensors = {**model.state_dict(), **{f"head.{k}": v for k, v in head.state_dict().items()}}
    step, seconds = checkpoint.resume(path, tensors, [optimizer])
    started = time.monotonic() - seconds
    with Bar("mini-clip", total=steps, unit="steps") as bar:
        bar.skip(step)
        while step < steps:
            generator = torch.Generator(device).manual_seed(seed * 1_000_003 + step)
            rows = examples.draw(batch_size, RAW_SHARE, generator)
            family, caption = examples.family[rows], examples.caption[rows]
            chance = torch.rand(batch_size, generator=generator, device=device)
            named = (chance < NAMED_SHARE) & (family >= 0)
            text = caption + torch.where(named, family + 1, 0) * len(captions)
            penultimate.clear()
            with torch.autocast(device, torch.bfloat16):
                images, words, scale = model(
                    jitter(to_tensor(pixels[rows]), generator), tokens[text]
                )
                style = F.normalize(head(penultimate[0][:, 1:].mean(1)), dim=-1)
            # a text without a style fits the picture in whatever style
            same_style = family[:, None] == family[None]
            positives = (caption[:, None] == caption[None]) & (~named[None] | same_style)
            loss = caption_loss(scale.float() * images.float() @ words.float().T, positives)
            loss = loss + 0.3 * same_style_loss(style.float(), examples.style[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            set_rate(optimizer, PEAK_RATE * rate_scale(step, steps))
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, 4.6052)
            step += 1
            bar.advance(1, f"loss {loss.item():.3f}")
            if step % 100 == 0 or step == steps:
                spent = time.monotonic() - started
                checkpoint.save(path, tensors, [optimizer], step=step, seconds=spent)
    hook.remove()
    save_clip(model.cpu(), settings, tokenizer, out)
    write_card(
        out,
        title="mini-clip",
        what="An open_clip model (2 M parameters, 64 px): scorer and style encoder of the mini family.",
        data="Mini corpus, split `train`, raw and in the training styles (half of them named).",
        command="python -m stylear.mini.train_clip",
        hardware=hardware(device),
        seconds=time.monotonic() - started,
        measured={**recall(ClipEncoder.open(str(out))), "steps": steps},
    )


def rate_scale(step: int, steps: int) -> float:
    """Share of the peak rate: warm-up, then cosine to zero."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


def recall(clip: ClipEncoder) -> dict[str, float]:
    """Text-to-image recall among the second hands that training never saw: share of captions whose own
    drawing ranks first (within the first five) of all of them."""
    held = drawings("val")
    images = clip.embed_images(clip.preprocess(list(held.pixels)))
    texts = clip.embed_texts(held.captions)
    ranks = (
        (texts @ images.T)
        .argsort(dim=1, descending=True)
        .eq(torch.arange(len(held))[:, None])
        .float()
        .argmax(1)
    )
    return {
        "held-out second hands": len(held),
        "text-to-image recall@1": (ranks < 1).float().mean().item(),
        "text-to-image recall@5": (ranks < 5).float().mean().item(),
    }


def main() -> None:
    parser = make_parser("mini-clip", steps=1450, batch_size=1024)
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
