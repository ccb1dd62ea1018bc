"""`stylear train encode`: the splits of corpora encoded into one cache, and its size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylear.curate.corpus.object_store import corpus_path, in_store
from stylear.device import pick_device
from stylear.errors import UsageError
from stylear.model.open import load_model
from stylear.train.encode import encode_corpus
from stylear.train.inputs import find_final_model
from stylear.train.setting_types import parse_size

FEATURES = ("cache", "compute")
SPLITS = ("train", "val")


def encode_corpora(
    corpora: Sequence[str],
    model: str,
    out: Path | None,
    *,
    copies: int,
    buckets: Sequence[str],
    features: str,
    device: str,
) -> dict[str, Any]:
    """Encode train/ and val/ of corpora into `out`, by default beside the first of them.

    Returns the directory, its encoded shards, the number of images, and bytes in all and for each image.
    Raises UsageError for a size or a mode that does not exist, or for a corpus in an object store without
    `out`.
    """
    if features not in FEATURES:
        raise UsageError(f"--features: expected one of {', '.join(FEATURES)}, found {features!r}")
    try:
        sizes = [parse_size(bucket) for bucket in buckets]
    except ValueError as error:
        raise UsageError(f"--bucket: {error}, found {', '.join(buckets)}") from error
    folders = [corpus_path(corpus) for corpus in corpora]
    if out is None and in_store(folders[0]):
        raise UsageError(
            f"--out: expected a local directory for the encoded files of {folders[0]}, found none"
        )
    cache = out or folders[0].with_name(f"{folders[0].resolve().name}-encoded")
    loaded = load_model(find_final_model(model), choose_device(device))
    shards = [
        shard
        for folder in folders
        for split in SPLITS
        if split == "train" or any((folder / split).glob("*.tar"))
        for shard in encode_corpus(
            loaded,
            folder,
            split,
            cache,
            copies=copies,
            features=features == "cache" and loaded.num_style_tokens > 0,
            buckets=sizes,
        )
    ]
    images, size = sum(shard.rows for shard in shards), sum(shard.bytes for shard in shards)
    return {
        "out": str(cache),
        "shards": [str(shard.folder) for shard in shards],
        "images": images,
        "bytes": size,
        "bytes_per_image": round(size / images),
    }


def choose_device(name: str) -> str:
    """The torch device of this process; each process of `torchrun` takes a GPU of its own."""
    device, local_rank = pick_device(name), os.environ.get("LOCAL_RANK")
    return f"cuda:{local_rank}" if device == "cuda" and local_rank is not None else device
