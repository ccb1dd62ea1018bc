"""Preference pairs, encoded once: captions, codes of both images, and the image that shows their style.

N pairs, L codes of an image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylear.console import Bar
from stylear.curate.corpus.no_preferences import explain_no_preferences_in
from stylear.curate.corpus.parquet import file_sha256
from stylear.curate.corpus.shards import shard_paths, tar_samples
from stylear.errors import CorpusError
from stylear.model.packing import pack_batch
from stylear.model.style_model import StyleModel
from stylear.pair import digest
from stylear.train.data import EncodedSet, build_prompt, forward_logits
from stylear.train.losses import sequence_log_probs
from stylear.train.pictures import decode_picture, picture_to_pixels
from stylear.weights import files as weights

EXTS = ("png", "jpg", "webp")
SIDES = ("chosen", "rejected")
ROW = ("key", "caption", "reference", "style_key")  # what a cached file keeps of a row
VERSION = 2
BATCH = 16  # pairs that are encoded at a time


@dataclass(frozen=True)
class PreferenceSet:
    """Encoded preference pairs, and the training images that show their styles."""

    keys: tuple[str, ...]
    captions: tuple[str, ...]
    codes: Tensor  # (2, N, L) int32, chosen first
    styles: EncodedSet | None  # the training images; None for a model without style tokens
    style_rows: tuple[int, ...]  # the training image that shows a pair's style; none without styles
    without_style: int  # pairs left out because no training image shows their style
    equal_codes: int  # pairs left out because both images have the same codes

    def __len__(self) -> int:
        return len(self.captions)

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that the log-probabilities of the pairs depend on, except the model."""
        hashes = [weights.hash_tensors({"codes": self.codes})]
        if self.styles is not None:
            hashes += [
                weights.hash_tensors({"features": self.styles.read_features([row])})
                for row in sorted(set(self.style_rows))
            ]
        return digest(*hashes, *self.captions, *self.style_rows)

    def compute_log_probs(self, model: StyleModel, picks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B,) of the chosen and the rejected images, from one forward pass."""
        prompts = [build_prompt(model, self.captions[pick]) for pick in picks] * len(SIDES)
        codes = self.codes[:, list(picks)].reshape(len(prompts), *model.grid)
        tokens = None
        if self.styles is not None and model.resampler is not None:
            features = self.styles.read_features([self.style_rows[pick] for pick in picks])
            tokens = model.resampler(features.to(model.device)).repeat(len(SIDES), 1, 1)
        batch = pack_batch(model.layout, prompts, codes).to(model.device)
        logits = forward_logits(model, batch, tokens)
        sums = sequence_log_probs(logits, batch.codes, batch.code_rows, len(prompts))
        return sums[: len(picks)], sums[len(picks) :]


def list_corpus_preferences(corpora: Sequence[Path]) -> list[Path]:
    """The shards of the preference pairs of all corpora. Raises CorpusError if a corpus has none."""
    paths: list[Path] = []
    for corpus in corpora:
        shards = shard_paths(corpus / "preferences")
        if not shards:
            reason, remedy = explain_no_preferences_in(corpus)
            raise CorpusError(
                f"{corpus}: expected preference pairs, found none: {reason}", hint=remedy
            )
        paths += shards
    return paths


def open_preferences(
    model: StyleModel, shards: Sequence[Path], styles: EncodedSet, cache: Path
) -> PreferenceSet:
    """The pairs of shards, encoded or read from `cache`, each with a training image of its style.

    That is the image that the pair was drawn with (`style_key`), else the first of its style. Pairs whose
    reference has no training image, or whose images have the same codes, are left out and counted. Raises
    CorpusError if a sample is incomplete, has the same image on both sides, or if no pair is left.
    """
    rows: list[dict[str, Any]] = []
    codes: list[Tensor] = []
    for path in encode_preferences(model, shards, cache):
        tensors, shard_rows = read_encoded_preferences(path)
        codes.append(tensors)
        rows += shard_rows
    sides = torch.cat(codes, dim=1)
    first = {group: int(numbers[0]) for group, numbers in styles.groups.items()}
    by_key = {key: number for number, key in enumerate(styles.read_column("key"))}
    style_rows = [by_key.get(row["style_key"], first.get(row["reference"])) for row in rows]
    is_equal = (sides[0] == sides[1]).all(dim=1).tolist()
    is_styled = [not styles.has_features or number is not None for number in style_rows]
    kept = [i for i in range(len(rows)) if is_styled[i] and not is_equal[i]]
    without_style = is_styled.count(False)
    if not kept:
        raise CorpusError(
            f"preference pairs: expected some to train on, found none usable of {len(rows)} in"
            f" {shards[0].parent}: {without_style} have no training image of their reference to take the"
            f" style from, {sum(is_equal)} have the same codes on both sides",
            hint="lower the thresholds of the filter, then `stylear curate run RECIPE --out CORPUS`",
        )
    shown = [number for i in kept if (number := style_rows[i]) is not None]
    return PreferenceSet(
        keys=tuple(str(rows[i]["key"]) for i in kept),
        captions=tuple(str(rows[i]["caption"]) for i in kept),
        codes=sides[:, kept],
        styles=styles if styles.has_features else None,
        style_rows=tuple(shown) if styles.has_features else (),
        without_style=without_style,
        equal_codes=sum(e and s for e, s in zip(is_equal, is_styled, strict=True)),
    )


def encode_preferences(model: StyleModel, shards: Sequence[Path], cache: Path) -> list[Path]:
    """Encode shards of preference pairs and return the cached files in order.

    A file holds `chosen` and `rejected` (N, L) int32, and keys, captions and references in its metadata.
    Its name has the hashes of the shard and of the VQ model, so another shard or model is encoded again.
    """
    vq_sha256 = weights.hash_tensors(model.vq.state_dict())
    cached = []
    with Bar("encode preferences", total=len(shards), unit="shards") as bar:
        for shard in shards:
            key = digest("preferences", VERSION, file_sha256(shard), vq_sha256)[:16]
            path = cache / f"preferences-{shard.stem}-{key}.safetensors"
            if not path.exists():
                tensors, rows = encode_preference_shard(model, shard)
                metadata = {"rows": json.dumps(rows, ensure_ascii=False)}
                weights.write_tensors(path, tensors, metadata=metadata)
            cached.append(path)
            bar.advance()
    return cached


@torch.inference_mode()
def encode_preference_shard(
    model: StyleModel, shard: Path
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Codes of both sides, and rows, of one shard."""
    height, width = model.grid
    rows: list[dict[str, Any]] = []
    codes: list[Tensor] = [torch.empty(0, len(SIDES), height * width, dtype=torch.int32)]
    samples = read_preferences(shard)
    while batch := list(islice(samples, BATCH)):
        rows += [{name: row[name] for name in ROW} for row, _ in batch]
        pixels = torch.stack(
            [
                picture_to_pixels(decode_picture(image), model.vq.config.resolution)
                for _, images in batch
                for image in images
            ]
        )
        encoded = model.vq.encode(pixels.to(model.device)).cpu()
        codes.append(encoded.view(len(batch), len(SIDES), -1).int())
    joined = torch.cat(codes)
    return {side: joined[:, number] for number, side in enumerate(SIDES)}, rows


def read_preferences(shard: Path) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    """The row (key, caption, reference, style_key ...) and both images of each sample, chosen first.

    Raises CorpusError for an incomplete sample, or one with the same image on both sides.
    """
    for key, files in tar_samples(shard):
        images = [
            next((files[f"{side}.{ext}"] for ext in EXTS if f"{side}.{ext}" in files), None)
            for side in SIDES
        ]
        try:
            row = json.loads(files["json"])
            row["caption"], row["reference"]
        except (KeyError, TypeError, ValueError) as error:
            raise CorpusError(
                f"{shard}: {key}: expected {key}.json with caption and reference, found {error!r}"
            ) from error
        chosen, rejected = images
        if chosen is None or rejected is None:
            raise CorpusError(
                f"{shard}: {key}: expected {key}.chosen and {key}.rejected as one of"
                f" {', '.join(EXTS)}, found {', '.join(sorted(files))}"
            )
        if chosen == rejected:
            raise CorpusError(
                f"{shard}: {key}: expected two different images, found the same on both sides",
                hint="nothing can be learned from such a pair: remove it, or build the pairs again",
            )
        yield row | {"key": key, "style_key": row.get("style_key")}, [chosen, rejected]


def read_encoded_preferences(path: Path) -> tuple[Tensor, list[dict[str, Any]]]:
    """Codes (2, N, L) and the rows of a cached file."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        codes = torch.stack([file.get_tensor(side) for side in SIDES])
        rows: list[dict[str, Any]] = json.loads(file.metadata()["rows"])
    return codes, rows
