"""Train mini-ar and mini-stylear by the project's own commands, then measure both and write their cards.

    python -m stylear.mini.train_ar

mini-clip and mini-vq must be trained before. Everything but the two models stays in mini-build/.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylear.console import say
from stylear.encoders.clip import ClipEncoder
from stylear.evaluation.evaluate import evaluate
from stylear.evaluation.metrics import pair_cosine
from stylear.mini.card import write_card
from stylear.mini.drawings import Pictures, drawings, to_tensor
from stylear.model.chameleon import StyleModel
from stylear.model.layout import collate
from stylear.model.open import open_model
from stylear.sampling.generate import generate
from stylear.sampling.references import load_styles
from stylear.weights.names import MINI_MODELS

WORK = Path("mini-build")  # the manifests name it too
RAW = (
    "curate run manifests/mini-raw.yaml --out mini-build/raw",
    "train sft --config manifests/train-mini-ar.yaml",
)
STYLED = (
    "curate run manifests/mini-styles.yaml --out mini-build/styles",
    "train sft --config manifests/train-mini-stylear.yaml",
)
# ours: what looks best at this size
SAMPLING: dict[str, Any] = {"guidance": 3.0, "top_k": 200, "temperature": 0.9}
PROMPTS = ("a red apple", "a cat face", "a house", "a tulip", "a red car", "a fish", "a key")


def stylear(line: str) -> None:
    """Run a `stylear` command as a user would; its failure ends this program."""
    say(f"\nstylear {line}")
    subprocess.run([sys.executable, "-m", "stylear", *shlex.split(line)], check=True)


def module(line: str) -> None:
    """Run a module of the mini family."""
    say(f"\npython -m {line}")
    subprocess.run([sys.executable, "-m", *shlex.split(line)], check=True)


def ship(run: Path, name: str) -> Path:
    """Put a run's final model in place of the shipped one; its directory."""
    target = MINI_MODELS / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(run / "final", target)
    return target


def train_ar() -> None:
    """mini-ar: the embedded drawings from random weights."""
    started = time.monotonic()
    module(f"stylear.mini.new_ar --out {WORK / 'ar-0'}")
    for line in RAW:
        stylear(line)
    target = ship(WORK / "ar", "mini-ar")
    minutes = (time.monotonic() - started) / 60
    write_card(
        target,
        title="mini-ar",
        what="A text-to-image decoder of 3.4 M parameters in the Chameleon token layout: 64 codes a picture.",
        data="Mini corpus, split `train`, as it is (`manifests/mini-raw.yaml`); no style.",
        command="stylear train sft --config manifests/train-mini-ar.yaml",
        minutes=minutes,
        measured=ar_quality(open_model("mini-ar")),
    )


def train_stylear() -> None:
    """mini-stylear: mini-ar with style tokens, on rendered styles."""
    started = time.monotonic()
    module(f"stylear.mini.references --variants 16 --train-only --out {WORK / 'references'}")
    for line in STYLED:
        stylear(line)
    target = ship(WORK / "stylear", "mini-stylear")
    minutes = (time.monotonic() - started) / 60
    write_card(
        target,
        title="mini-stylear",
        what="mini-ar with 8 style tokens: it draws a prompt in the style of a reference picture.",
        data="Mini corpus, split `train`, in 16 variants of 20 styles (`manifests/mini-styles.yaml`);"
        " six styles held out.",
        command="stylear train sft --config manifests/train-mini-stylear.yaml",
        minutes=minutes,
        measured=style_quality(),
    )


@torch.no_grad()
def ar_quality(model: StyleModel) -> dict[str, float]:
    """Loss and CLIP text scores on the second hands that no model was trained on."""
    held, clip = drawings("val"), ClipEncoder.open("mini-clip")
    seeds = list(range(len(held)))
    drawn = generate(model, held.captions, seeds=seeds, noise=0.0, **SAMPLING)
    texts = clip.embed_texts(held.captions)
    shuffled = texts.roll(len(texts) // 2, 0)
    pictures = clip.embed_images(clip.preprocess(drawn))
    real = clip.embed_images(clip.preprocess(list(held.pixels)))
    return {
        "held-out drawings": len(held),
        "validation loss (nats a code)": validation_loss(model, held),
        "CLIP text score of its samples": float(pair_cosine(pictures, texts).mean()),
        "CLIP text score of the real drawings": float(pair_cosine(real, texts).mean()),
        "CLIP text score of its samples, captions shuffled": float(
            pair_cosine(pictures, shuffled).mean()
        ),
    }


def validation_loss(model: StyleModel, held: Pictures) -> float:
    """Mean cross entropy of the image codes of held-out drawings, given their captions."""
    codes = model.vq.encode(to_tensor(held.pixels))
    template = model.settings.caption_template
    examples = [
        model.layout.example(caption, grid, 0, template)
        for caption, grid in zip(held.captions, codes, strict=True)
    ]
    batch = collate(examples, model.layout.pad)
    hidden: Tensor = model.decoder(model.decoder.embed(batch.ids))
    logits = model.decoder.image_logits(hidden[batch.code_rows, batch.code_columns - 1])
    return float(F.cross_entropy(logits, batch.codes))


def style_quality() -> dict[str, float | str]:
    """Style and text scores on the held-out styles, beside mini-ar's, which sees no reference."""
    references = [r for r in load_styles("mini") if r.held_out]
    found = evaluate(
        [open_model("mini-ar"), open_model("mini-stylear")],
        references,
        PROMPTS,
        [0, 1],
        clip=ClipEncoder.open("mini-clip"),
        noise=0.1,
        **SAMPLING,
    )
    measured: dict[str, float | str] = {"held-out style references": len(references)}
    for row in found.table():
        name = row.pop("model")
        measured |= {f"{name}: {metric}": value for metric, value in row.items()}
    return measured


def main() -> None:
    argparse.ArgumentParser(description="Train mini-ar and mini-stylear.").parse_args()
    for name in (
        "raw",
        "ar-0",
        "ar",
        "ar-encoded",
        "references",
        "styles",
        "stylear",
        "styles-encoded",
    ):
        shutil.rmtree(WORK / name, ignore_errors=True)
    train_ar()
    train_stylear()


if __name__ == "__main__":
    main()
