"""A tiny corpus in the project's format, for tests of the trainer: train/, val/, preferences/."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from stylear.curate.corpus.shards import write_shard
from stylear.curate.corpus.tars import write_tar
from stylear.pair import Origin, Pair, content_id, digest

CAPTIONS = ["a red apple", "a blue boat", "a green tree", "a house"]
STYLES = ["warm", "cold"]


def picture(seed: int, size: int = 32) -> bytes:
    """PNG bytes of a smooth random picture."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((size, size), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def pair(caption: str, style: str | None, seed: int) -> Pair:
    content = content_id(caption)
    origin = (
        Origin("raw", f"folder:{seed}.png", content)
        if style is None
        else Origin(
            "stylized", "synthesizer:test", content, reference=style, reference_sha256="0" * 64
        )
    )
    return Pair(digest(caption, style, seed), caption, picture(seed), origin)


def write_tiny_corpus(directory: Path) -> Path:
    """Eight stylized and four raw pairs to train on, four to validate, four preference pairs."""
    stylized = [
        pair(caption, style, 10 * i + j)
        for i, caption in enumerate(CAPTIONS)
        for j, style in enumerate(STYLES)
    ]
    raw = [pair(caption, None, 100 + i) for i, caption in enumerate(CAPTIONS)]
    write_shard(directory / "train", 0, [*stylized, *raw])
    write_shard(directory / "val", 0, [pair(c, STYLES[0], 200 + i) for i, c in enumerate(CAPTIONS)])
    members = []
    for i, caption in enumerate(CAPTIONS):
        key = digest("preference", caption)
        row = {
            "key": key,
            "caption": caption,
            "reference": STYLES[i % 2],
            "chosen": stylized[2 * i].key,
            "rejected": stylized[2 * i + 1].key,
            "margin": 0.1,
        }
        members += [
            (f"{key}.chosen.png", stylized[2 * i].image),
            (f"{key}.rejected.png", stylized[2 * i + 1].image),
            (f"{key}.txt", caption.encode()),
            (f"{key}.json", json.dumps(row).encode()),
        ]
    (directory / "preferences").mkdir()
    write_tar(directory / "preferences" / "00000.tar", members)
    return directory
