"""Encode a corpus once: image codes and frozen CLIP features, shard by shard, in files of their own.

B images of a batch, C copies, h w code grid, H W pixels, P patches + 1, W their width.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stylear.console import Bar, say_warning
from stylear.curate.corpus.parquet import count_table_rows, file_sha256
from stylear.curate.corpus.shards import read_shard, shard_paths
from stylear.errors import CorpusError, SourceError, UsageError, WeightsError
from stylear.model.style_model import StyleModel
from stylear.pair import Pair, digest
from stylear.train.encoded_files import CODES, FEATURES, RECORD, EncodedPart, PartWriter
from stylear.train.pictures import (
    Pixels,
    augment,
    choose_bucket,
    decode_picture,
    fit_picture,
    scale_pixels,
)
from stylear.train.prefetch import map_ahead
from stylear.train.style_groups import UNKNOWN_STYLE
from stylear.weights import files as weights

VERSION = 3  # raise when the same images and models give other files
BATCH = 64
AHEAD = 3  # batches of images that are prepared ahead
MAX_CODES = 1 << 16
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Encoding:
    """What the files of an encoded shard depend on, besides its images."""

    tokenizer_sha256: str
    encoder_sha256: str | None  # None: no features
    preprocessing: str | None  # of the encoder
    sizes: tuple[Size, ...]  # in pixels
    copies: int
    version: int = VERSION

    @classmethod
    def of(
        cls, model: StyleModel, *, copies: int, features: bool, buckets: Sequence[Size] = ()
    ) -> Encoding:
        """The encoding by a model. Raises WeightsError or UsageError if the model does not support it."""
        if model.layout.num_codes > MAX_CODES:
            raise WeightsError(
                f"{model.name}: expected at most {MAX_CODES:,} image codes, found {model.layout.num_codes:,}"
            )
        side = model.vq.config.resolution
        sizes = tuple(dict.fromkeys(buckets)) or ((side, side),)
        for size in sizes:
            check_size(model, size)
        clip = model.clip if features else None
        if features and clip is None:
            raise WeightsError(f"{model.name}: expected a style encoder, found none")
        return cls(
            tokenizer_sha256=weights.hash_tensors(model.vq.state_dict()),
            encoder_sha256=clip.weights_sha256 if clip is not None else None,
            preprocessing=clip.preprocessing if clip is not None else None,
            sizes=sizes,
            copies=copies,
        )


@dataclass(frozen=True)
class EncodedShard:
    """An encoded shard: its directory, the tar it was made from, and its parts, one for each grid."""

    folder: Path
    tar: Path
    parts: tuple[EncodedPart, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def bytes(self) -> int:
        """The size of its files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def check_size(model: StyleModel, size: Size) -> None:
    """Raise UsageError if the model cannot draw images of (height, width) pixels."""
    factor = model.vq.config.factor
    try:
        model.layout.prefix(*model.layout.compute_grid(*size, factor))
    except (UsageError, WeightsError) as error:
        raise UsageError(f"buckets: {size[0]}x{size[1]}: {error}", hint=error.hint) from error


def encode_corpus(
    model: StyleModel,
    corpus: Path,
    split: str,
    cache: Path,
    *,
    copies: int,
    features: bool,
    buckets: Sequence[Size] = (),
) -> list[EncodedShard]:
    """Encode the shards of a split into directories of `cache`, and return them in order.

    A shard that is encoded already is not encoded again. Any number of processes can run this on the same
    cache and share the shards; each returns when all are encoded. A killed process leaves no unfinished shard
    under its final name. `buckets` are sizes (height, width) in pixels; each picture takes the one of the
    nearest aspect ratio, by default the size the image tokenizer was trained on.

    Raises CorpusError if the split has no pairs or an image is damaged, WeightsError or UsageError if the
    model cannot encode them.
    """
    tars = shard_paths(corpus / split)
    counts = {tar: count_table_rows(tar.with_suffix(".parquet")) for tar in tars}
    empty = CorpusError(
        f"{corpus / split}: expected pairs to train on, found none",
        hint="build the corpus first: stylear curate run RECIPE --out CORPUS",
    )
    if not sum(counts.values()):
        raise empty
    encoding = Encoding.of(model, copies=copies, features=features, buckets=buckets)
    tables = {tar: file_sha256(tar.with_suffix(".parquet")) for tar in tars}
    folders = {tar: cache / name_shard(split, tar, tables[tar], encoding) for tar in tars}
    warn_of_other_encoding(folders, tables, encoding)
    with Bar(f"encode {split}", total=sum(counts.values()), unit="images") as bar:
        # what another process is at is left to it; at last its shards are waited for
        for wait in (False, True):
            for tar, folder in folders.items():
                if is_encoded(folder):
                    continue
                with lock_shard(folder, wait=wait) as locked:
                    if locked and not is_encoded(folder):
                        encode_shard(model, tar, folder, tables[tar], encoding, bar)
                        counts[tar] = 0
        bar.skip(sum(counts.values()))
    shards = [open_shard(folder, tar) for tar, folder in folders.items()]
    if not sum(shard.rows for shard in shards):
        raise empty  # its tables have rows, but none of them an image
    return shards


def name_shard(split: str, tar: Path, table_sha256: str, encoding: Encoding) -> str:
    """The name of an encoded shard's directory, with a hash of its images and of all they are encoded by.

    The table of a shard lists the hash of every image.
    """
    key = digest("encode", table_sha256, json.dumps(asdict(encoding)))
    return f"{split}-{tar.stem}-{key[:16]}"


def is_encoded(folder: Path) -> bool:
    return (folder / RECORD).is_file()


def warn_of_other_encoding(
    folders: Mapping[Path, Path], tables: Mapping[Path, str], encoding: Encoding
) -> None:
    """Say what differs if the same images were encoded by another model or with other settings."""
    expected = json.loads(json.dumps(asdict(encoding)))
    for tar, folder in folders.items():
        if is_encoded(folder):
            continue
        for path in sorted(folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*/{RECORD}")):
            record = weights.read_json(path)
            recorded = record.get("encoding", {})
            changed = [name for name in expected if recorded.get(name) != expected[name]]
            if changed and record.get("table_sha256") == tables[tar]:
                name = changed[0]
                say_warning(
                    f"{path.parent}: encoded with {name} {short(recorded.get(name))}, now"
                    f" {short(expected[name])}; the corpus is encoded again, beside it"
                )
                return


def short(value: object) -> str:
    """A setting, or the beginning of a hash."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else json.dumps(value)


@contextmanager
def lock_shard(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Whether the lock of an encoded shard was acquired; with `wait` it always is, when it is free.

    The system releases the lock of a process that was killed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
        Path(file.name).unlink(missing_ok=True)


def encode_shard(
    model: StyleModel, tar: Path, folder: Path, table_sha256: str, encoding: Encoding, bar: Bar
) -> None:
    """Encode one shard into a directory that gets its name when it is complete."""
    temp = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temp, ignore_errors=True)
    writers: dict[str, PartWriter] = {}
    for batch in prepare_batches(model, tar, encoding):
        codes, features = encode_batch(model, batch, encoding)
        height, width = codes.shape[2:]
        name = f"{height}x{width}"
        writer = writers.setdefault(name, PartWriter(temp / name))
        arrays = {CODES: codes.numpy().astype(np.uint16)}
        if features is not None:
            arrays[FEATURES] = features.numpy()
        writer.append([describe_pair(prepared.pair) for prepared in batch], arrays)
        bar.advance(len(batch))
    record = {
        "shard": tar.name,
        "table_sha256": table_sha256,
        "encoding": asdict(encoding),
        "rows": {name: writer.close() for name, writer in writers.items()},
    }
    weights.write_json(temp / RECORD, record)
    shutil.rmtree(folder, ignore_errors=True)
    temp.replace(folder)


def open_shard(folder: Path, tar: Path) -> EncodedShard:
    """An encoded shard. Raises CorpusError if its record is damaged."""
    rows = weights.read_json(folder / RECORD).get("rows")
    if not isinstance(rows, dict) or not all(isinstance(n, int) for n in rows.values()):
        raise CorpusError(f"{folder / RECORD}: expected numbers of rows, found {rows!r}")
    parts = tuple(EncodedPart(folder / name, count) for name, count in rows.items())
    return EncodedShard(folder, tar, parts)


@dataclass(frozen=True)
class PreparedImage:
    """A pair whose image is ready for the image tokenizer and the image encoder."""

    pair: Pair
    pixels: Pixels  # (C, H, W, 3)
    resized: Tensor | None  # for the image encoder


def prepare_batches(
    model: StyleModel, tar: Path, encoding: Encoding
) -> Iterator[list[PreparedImage]]:
    """Batches of one size each; images are decoded in threads while the model is at work."""
    waiting: dict[tuple[int, ...], list[PreparedImage]] = defaultdict(list)
    pairs = (pair for pair in read_shard(tar) if pair.image)
    prepare = partial(prepare_image, model, tar, encoding)
    threads = os.cpu_count() or 1
    for prepared in map_ahead(prepare, pairs, ahead=AHEAD * BATCH, threads=threads):
        batch = waiting[prepared.pixels.shape]
        batch.append(prepared)
        if len(batch) == BATCH:
            yield waiting.pop(prepared.pixels.shape)
    yield from waiting.values()


def prepare_image(model: StyleModel, tar: Path, encoding: Encoding, pair: Pair) -> PreparedImage:
    """Decode, resize and augment an image. Raises CorpusError naming the pair if it does not decode."""
    try:
        picture = decode_picture(pair.image)
    except (OSError, ValueError, SyntaxError, SourceError) as error:
        raise CorpusError(f"{tar}: {pair.key}: expected an image, found: {error}") from error
    fitted = fit_picture(picture, choose_bucket(*picture.size, encoding.sizes))
    copies = np.stack([augment(fitted, pair.key, copy) for copy in range(encoding.copies)])
    resized = None
    if encoding.encoder_sha256 is not None and model.clip is not None:
        resized = model.clip.preprocessor.resize(picture)
    return PreparedImage(pair, copies, resized)


@torch.inference_mode()
def encode_batch(
    model: StyleModel, batch: Sequence[PreparedImage], encoding: Encoding
) -> tuple[Tensor, Tensor | None]:
    """Codes (B, C, h, w) and features (B, P, W) float16 of prepared images of one size."""
    device = next(model.vq.parameters()).device
    pixels = torch.from_numpy(np.concatenate([prepared.pixels for prepared in batch]))
    codes = model.vq.encode(scale_pixels(pixels.to(device)))  # (B C, h, w)
    codes = codes.view(len(batch), encoding.copies, *codes.shape[-2:])
    features = None
    if encoding.encoder_sha256 is not None and model.clip is not None:
        resized = [prepared.resized for prepared in batch if prepared.resized is not None]
        pixels = model.clip.preprocessor.normalize(resized)
        features = model.clip.patch_features(pixels).half().cpu()
    return codes.cpu(), features


def describe_pair(pair: Pair) -> dict[str, str]:
    """Key, caption, kind and group of a pair; images of one group share a style.

    The group is the style reference, or the set that a raw drawing is from; "" for any other raw image.
    """
    vendor = pair.origin.details.get("vendor")
    group = pair.origin.reference or (f"raw:{vendor}" if vendor else UNKNOWN_STYLE)
    return {
        "key": pair.key,
        "caption": pair.caption,
        "kind": pair.origin.kind,
        "group": group,
    }
