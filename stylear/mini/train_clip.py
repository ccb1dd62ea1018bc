"""Train mini-clip: a CLIP of 2 M parameters on the mini corpus, raw and in the training styles.

    python -m stylear.mini.train_clip --out stylear/mini/models/mini-clip

Contrastive image-text loss (open_clip), plus a supervised contrastive loss that draws pictures of the
same style together in a projection of the penultimate patch features, because those features are what
the style tokens are made from. That projection is thrown away after training.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylear.console import Bar, say
from stylear.encoders.clip import ClipEncoder, save_clip
from stylear.mini.card import write_card
from stylear.mini.drawings import Pictures, drawings, in_styles, jittered, joined, to_tensor
from stylear.mini.words import clip_tokenizer

CONTEXT = 20
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
    others = ~torch.eye(len(styles), dtype=torch.bool)
    positives = (styles[:, None] == styles[None]) & others
    logits = (features @ features.T / temperature).masked_fill(~others, -1e4)
    log_probs = logits - logits.logsumexp(1, keepdim=True)
    rows = positives.any(1)
    if not bool(rows.any()):
        return features.sum() * 0.0
    return -((log_probs * positives).sum(1)[rows] / positives.sum(1)[rows]).mean()


def captions_with_style(pictures: Pictures, chance: float, generator: torch.Generator) -> list[str]:
    """Captions; those of styled pictures name their style with this chance."""
    named = (torch.rand(len(pictures), generator=generator) < chance).tolist()
    return [
        f"{caption} in {style.split('/')[0]} style" if style and name else caption
        for caption, style, name in zip(pictures.captions, pictures.styles, named, strict=True)
    ]


def train(
    out: Path, *, minutes: float, batch_size: int, seed: int, copies: int, variants: int
) -> None:
    """Train for `minutes`, measure on held-out hands, write the open_clip directory and its card."""
    import open_clip

    started = time.monotonic()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    raw = drawings("train")
    pictures = joined(raw, raw, in_styles(raw, copies, variants, seed))
    tokenizer = clip_tokenizer(sorted(set(pictures.captions)))
    settings = config(tokenizer.get_vocab_size())
    model = open_clip.model.CLIP(
        embed_dim=settings["model_cfg"]["embed_dim"],
        vision_cfg=settings["model_cfg"]["vision_cfg"],
        text_cfg=settings["model_cfg"]["text_cfg"],
    )
    weights = sum(p.numel() for p in model.parameters()) / 1e6
    say(f"mini-clip: {weights:.2f} M parameters, {len(pictures)} pictures")
    tokenizer.enable_truncation(CONTEXT)
    tokenizer.enable_padding(length=CONTEXT, pad_id=0, pad_token="<pad>")
    penultimate: list[Tensor] = []
    model.visual.transformer.resblocks[-2].register_forward_hook(
        lambda _m, _i, y: penultimate.append(y)
    )
    head = nn.Linear(160, 64)
    ids = {style: number for number, style in enumerate(sorted(set(pictures.styles) - {""}))}
    labels = torch.tensor([ids.get(style, -1) for style in pictures.styles])
    parameters = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1)
    contrastive = open_clip.ClipLoss()
    done, step, total = 0.0, 0, 0
    with Bar("mini-clip", unit="pictures") as bar:
        while done < 1.0:
            done = min(1.0, (time.monotonic() - started) / (60 * minutes))
            rate = (
                1e-3
                * min(1.0, (step + 1) / 40)
                * (0.5 * (1 + torch.cos(torch.tensor(torch.pi * done)))).item()
            )
            for group in optimiser.param_groups:
                group["lr"] = rate
            chosen = torch.randperm(len(pictures), generator=generator)[:batch_size]
            batch = Pictures(
                pictures.pixels[chosen.numpy()],
                [pictures.captions[i] for i in chosen.tolist()],
                [pictures.styles[i] for i in chosen.tolist()],
            )
            pixels = jittered(to_tensor(batch.pixels), generator)
            texts = captions_with_style(batch, 0.5, generator)
            tokens = torch.tensor([row.ids for row in tokenizer.encode_batch(texts)])
            penultimate.clear()
            with torch.autocast("cpu", torch.bfloat16):
                image_features, text_features, scale = model(pixels, tokens)
                style_features = F.normalize(head(penultimate[0][:, 1:].mean(1)), dim=-1)
            loss = contrastive(image_features.float(), text_features.float(), scale.float())
            loss = loss + 0.3 * same_style_loss(style_features.float(), labels[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, 4.6052)
            step, total = step + 1, total + batch_size
            bar.advance(batch_size, f"loss {loss.item():.3f}")
    save_clip(model, settings, tokenizer, out)
    measured = {**recall(ClipEncoder.open(str(out))), "steps": step, "pictures seen": total}
    write_card(
        out,
        title="mini-clip",
        what="An open_clip model (2 M parameters, 64 px): scorer and style encoder of the mini family.",
        data="Mini corpus, split `train`, raw and in the training styles (half of them named).",
        command=f"python -m stylear.mini.train_clip --minutes {minutes:g} --seed {seed}",
        minutes=(time.monotonic() - started) / 60,
        measured=measured,
    )


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
    parser = argparse.ArgumentParser(description="Train mini-clip.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models" / "mini-clip")
    parser.add_argument("--minutes", type=float, default=13.0)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--variants", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    train(options.pop("out"), **options)


if __name__ == "__main__":
    main()
