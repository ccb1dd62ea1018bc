"""What the mini decoders can do with what they never saw; the figures of their cards."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stylear.encoders.clip import ClipEncoder
from stylear.evaluation.evaluate import evaluate
from stylear.evaluation.metrics import pair_cosine, prompt_recall
from stylear.mini.drawings import Pictures, drawings, to_tensor
from stylear.mini.examples import FAMILIES, named_style
from stylear.mini.sampling import SAMPLING, STYLED_SAMPLING
from stylear.model.layout import collate
from stylear.model.style_model import StyleModel
from stylear.sampling.generate import generate
from stylear.sampling.references import load_styles

PROMPTS = ("a red apple", "a cat face", "a house", "a tulip", "a red car", "a fish", "a key")


@torch.no_grad()
def measure_base(model: StyleModel) -> dict[str, float | str]:
    """Loss and text scores on second hands that no model was trained on, and styles named in captions."""
    held, clip = drawings("val"), ClipEncoder.open("mini-clip")
    seeds = list(range(len(held)))
    drawn = generate(model, held.captions, seeds=seeds, noise=0.0, **SAMPLING)
    texts = clip.embed_texts(held.captions)
    pictures = clip.embed_images(clip.preprocess(drawn))
    real = clip.embed_images(clip.preprocess(list(held.pixels)))
    shuffled = texts.roll(len(texts) // 2, 0)
    return {
        "held-out drawings": len(held),
        "validation loss (nats a code)": validation_loss(model, held),
        "CLIP text score of its samples": float(pair_cosine(pictures, texts).mean()),
        "CLIP text score of the real drawings": float(pair_cosine(real, texts).mean()),
        "CLIP text score of its samples, captions shuffled": float(
            pair_cosine(pictures, shuffled).mean()
        ),
        **measure_named_styles(model, clip),
    }


def measure_named_styles(model: StyleModel, clip: ClipEncoder) -> dict[str, float]:
    """Shares of samples in named styles whose nearest text, of all styles or of all prompts, is their own."""
    jobs = [(prompt, family) for family in FAMILIES for prompt in PROMPTS]
    prompts = [named_style(prompt, family) for prompt, family in jobs]
    drawn = generate(model, prompts, seeds=list(range(len(jobs))), noise=0.0, **SAMPLING)
    pictures = clip.embed_images(clip.preprocess(drawn))
    styles = 0
    for row, (prompt, family) in enumerate(jobs):
        texts = clip.embed_texts([named_style(prompt, other) for other in FAMILIES])
        styles += FAMILIES[int((texts @ pictures[row]).argmax())] == family
    own = torch.tensor([PROMPTS.index(prompt) for prompt, _ in jobs])
    recall = prompt_recall(pictures.cpu(), clip.embed_texts(list(PROMPTS)).cpu(), own)
    return {
        f"samples that show the style their prompt names, of {len(FAMILIES)}": styles / len(jobs),
        f"samples in named styles that show their subject, of {len(PROMPTS)}": float(recall.mean()),
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


def measure_styled(base: StyleModel, model: StyleModel) -> dict[str, float | str]:
    """Style and text scores on the held-out styles, beside the base's, which sees no reference."""
    references = [reference for reference in load_styles("mini") if reference.held_out]
    clip = ClipEncoder.open("mini-clip")
    evaluation = evaluate([base, model], references, PROMPTS, [0, 1], clip=clip, **STYLED_SAMPLING)
    measured: dict[str, float | str] = {"held-out style references": len(references)}
    for row in evaluation.table():
        name = row.pop("model")
        measured |= {f"{name}: {metric}": value for metric, value in row.items()}
    return measured
