"""Encode a corpus once: image codes and frozen CLIP features, cached as safetensors.

N pairs, C copies, L codes of an image, P patches + 1, W their width.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from stylear.console import Bar
from stylear.curate.corpus.parquet import count_table_rows, file_sha256
from stylear.curate.corpus.shards import read_samples, shard_paths
from stylear.errors import CorpusError
from stylear.model.style_model import StyleModel
from stylear.pair import digest
from stylear.weights import files as weights

VERSION = 2
BATCH = 64
MAX_SHIFT = 16  # a copy is shifted by at most 1/16 of the side


def encode_corpus(
    model: StyleModel, corpus: Path, split: str, cache: Path, *, copies: int, features: bool
) -> list[Path]:
    """Encode the shards of a split and return the cached files in order; cached shards are not encoded again.

    A file holds `codes` (N, C, L) int32, `features` (N, P, W) float16 if asked for, and the keys, captions
    and groups of the rows in its metadata. Raises CorpusError if the split has no shard.
    """
    shards = shard_paths(corpus / split)
    if not shards:
        raise CorpusError(
            f"{corpus / split}: expected shards to train on, found none",
            hint="build the corpus first: stylear curate run RECIPE --out CORPUS",
        )
    vq_sha256 = weights.hash_tensors(model.vq.state_dict())
    cached = []
    counts = {shard: count_table_rows(shard.with_suffix(".parquet")) for shard in shards}
    with Bar(f"encode {split}", total=sum(counts.values()), unit="images") as bar:
        for shard in shards:
            name = compute_cache_key(model, vq_sha256, shard, copies=copies, features=features)
            path = cache / f"{split}-{shard.stem}-{name}.safetensors"
            if not path.exists():
                tensors, rows = encode_shard(model, shard, copies, features, bar)
                metadata = {"rows": json.dumps(rows, ensure_ascii=False)}
                path.parent.mkdir(parents=True, exist_ok=True)
                weights.write_tensors(path, tensors, metadata=metadata)
            else:
                bar.skip(counts[shard])
            cached.append(path)
    return cached


def compute_cache_key(
    model: StyleModel, vq_sha256: str, shard: Path, *, copies: int, features: bool
) -> str:
    """The key of a cached file: hashes of shard, VQ model and encoder, and the number of copies."""
    clip = model.clip.weights_sha256 if features and model.clip is not None else None
    return digest("encode", VERSION, file_sha256(shard), vq_sha256, clip, copies)[:16]


def encode_shard(
    model: StyleModel, shard: Path, copies: int, features: bool, bar: Bar
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Tensors and rows of one shard."""
    side = model.vq.config.resolution
    device = next(model.vq.parameters()).device
    rows: list[dict[str, Any]] = []
    codes: list[Tensor] = []
    feature_parts: list[Tensor] = []
    for batch in iterate_batches(read_samples([shard])):
        pictures = [decode_picture(sample["image"]) for sample in batch]
        rows += [describe_sample(sample) for sample in batch]
        copies_as_pixels = [
            augment(picture_to_pixels(picture, side), sample["key"], copy)
            for sample, picture in zip(batch, pictures, strict=True)
            for copy in range(copies)
        ]
        with torch.inference_mode():
            encoded = model.vq.encode(torch.stack(copies_as_pixels).to(device)).flatten(1).cpu()
            codes.append(encoded.view(len(batch), copies, -1).int())
            if features:
                feature_parts.append(model.style_features(pictures).half().cpu())
        bar.advance(len(batch))
    tensors = {"codes": torch.cat(codes)}
    if features:
        tensors["features"] = torch.cat(feature_parts)
    return tensors, rows


def iterate_batches(samples: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def decode_picture(data: bytes) -> Image.Image:
    """Decode a picture as RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def describe_sample(sample: dict[str, Any]) -> dict[str, Any]:
    """Key, caption, kind and group of a sample; images of one group share a style."""
    record = sample["json"]
    details = record.get("details") or {}
    group = record.get("reference") or f"raw:{details.get('vendor', '')}"
    return {
        "key": record["key"],
        "caption": record["caption"],
        "kind": record["kind"],
        "group": group,
    }


def picture_to_pixels(picture: Image.Image, side: int) -> Tensor:
    """A picture as pixels (3, side, side) in [-1, 1]."""
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(127.5).sub(1)


def augment(pixels: Tensor, key: str, copy: int) -> Tensor:
    """Copy 0 is the image itself; all others are shifted and odd ones also flipped, determined by the key."""
    if copy == 0:
        return pixels
    side = pixels.shape[-1]
    max_shift = max(1, side // MAX_SHIFT)
    offsets = int(digest("augment", key, copy)[:8], 16)
    y, x = offsets % (2 * max_shift + 1), (offsets // 64) % (2 * max_shift + 1)
    if copy % 2:
        pixels = pixels.flip(-1)
    padded = F.pad(pixels[None], (max_shift,) * 4, mode="replicate")[0]
    return padded[:, y : y + side, x : x + side]
