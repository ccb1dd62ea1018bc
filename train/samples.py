"""Sample images of a run, drawn while it trains."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from stylear.model.style_model import StyleModel
from stylear.sampling.generate import decode_codes, sample_codes
from stylear.train.checkpoint import Run
from stylear.train.data import EncodedSet, make_step_generator

SAMPLES = 6


def draw_samples(training_run: Run, model: StyleModel, data: EncodedSet, step: int) -> None:
    """Write a strip of pictures for the first captions, each in the style of its own row."""
    rows = data.draw_rows(0, 0, min(SAMPLES, len(data)))
    captions = data.read_column("caption", rows)
    styles: list[Tensor | None] = [None] * len(rows)
    model.decoder.eval()
    with torch.no_grad():
        if data.has_features and model.resampler is not None:
            features = data.read_features(rows).to(model.device)
            styles = list(model.resampler(features))
        draws = torch.rand(len(rows), *model.grid, generator=make_step_generator(0, 0))
        prompts = [model.encode_prompt(caption) for caption in captions]
        codes = sample_codes(model.decoder, model.layout, prompts, styles, draws)
        pictures = decode_codes(model, codes)
    model.decoder.train()
    side = pictures[0].width
    strip = Image.new("RGB", (side * len(pictures), side), "white")
    for column, picture in enumerate(pictures):
        strip.paste(picture, (column * side, 0))
    path = training_run.root / "samples" / f"step-{step:07d}.png"
    path.parent.mkdir(exist_ok=True)
    strip.save(path)
