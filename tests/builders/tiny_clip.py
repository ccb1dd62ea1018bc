"""A tiny random open_clip model on disk, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from stylear.encoders.clip import save_clip

WORDS = ["a", "an", "the", "red", "green", "blue", "apple", "dog", "cat", "house", "tree", "boat"]
WORDS += ["cake", "in", "style", "of"]
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 32,
            "patch_size": 8,
            "width": 32,
            "layers": 3,
            "head_width": 16,
        },
        "text_cfg": {
            "context_length": 12,
            "vocab_size": 4 + len(WORDS),
            "width": 32,
            "heads": 2,
            "layers": 2,
            "pool_type": "eos",
            "eos_id": 1,
        },
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
}


def tiny_tokenizer() -> Any:
    """Words to ids: <pad> 0, </s> 1, <s> 2, <unk> 3, then the words; `</s>` ends a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = ["<pad>", "</s>", "<s>", "<unk>", *WORDS]
    vocabulary = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.add_special_tokens(["<pad>", "</s>", "<s>", "<unk>"])
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 1)]
    )
    return tokenizer


def write_tiny_clip(directory: Path, seed: int = 0) -> Path:
    """A random model of 3 vision blocks (32 px, 16 patches, width 32) in open_clip's layout."""
    import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**CONFIG["model_cfg"])
    return save_clip(model, CONFIG, tiny_tokenizer(), directory)
