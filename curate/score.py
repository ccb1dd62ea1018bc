"""Scoring: models and hashes write numbers about pairs; nothing is decided here.

A scorer gives one table a shard: `key` and its columns, null where there is nothing to measure (no image,
or no style reference). What it measured with stands in the schema's metadata, under `stylear.scorer`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.references import StyleReference
from stylear.errors import CorpusError, SourceError
from stylear.pair import Pair, digest

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

VERSION = 2  # raise when the same images give other numbers
METADATA = b"stylear.scorer"
DECIMALS = 5  # ours
REMEMBERED = 64  # batches kept, so that two scorers of one model embed a batch once
COLOUR = "colour"  # column beside the perceptual hash: mean RGB of the four quarters, hex


class Scorer(Protocol):
    """Columns of one kind of measurement; its model is loaded with the first pair that needs it."""

    fingerprint: str  # changes when the same pair would get another score

    def __call__(self, pairs: Iterable[Pair]) -> pa.Table:
        """A table of `key` and the scorer's columns: one row a pair, in order."""
        ...


def open_scorer(spec: Any, references: Sequence[StyleReference]) -> Scorer:
    """The scorer of a recipe's `score` entry. Raises WeightsError when its model is missing."""
    images = {reference.id: reference.image for reference in references}
    if spec.type == "phash":
        return PhashScorer(spec)
    if spec.type == "texture":
        return TextureScorer(spec, images)
    return ClipScorer(spec, images)


def scorer_fingerprint(spec: Any) -> str:
    """What decides a scorer's numbers beside its settings: its code and its weights.

    Nothing is loaded. Raises WeightsError when the model is missing.
    """
    if spec.type == "texture":
        from stylear.encoders import texture

        return digest("texture", VERSION, texture.VERSION)
    if spec.type == "phash":
        return digest("phash", VERSION)
    return digest(spec.type, VERSION, model_sha256(spec.model))


def model_sha256(name: str) -> str:
    """The hash of all files of a CLIP: weights, config and tokenizer."""
    from stylear.weights import resolve, sha256_of

    arch, _, checkpoint = name.partition("/")
    if checkpoint and arch and not Path(name).expanduser().exists():
        return sha256_of(resolve(checkpoint))
    return sha256_of(resolve(name))


class ClipScorer:
    """Cosine of the image with its caption (clip-text) or with its style reference (clip-style)."""

    def __init__(self, spec: Any, references: dict[str, bytes]) -> None:
        self.spec, self.references = spec, references
        self.fingerprint = scorer_fingerprint(spec)
        self._device = pick_device(spec.device)

    def __call__(self, pairs: Iterable[Pair]) -> pa.Table:
        embedder = embedder_of(self.spec.model, self._device)
        keys: list[str] = []
        values: list[float | None] = []
        for batch in batches(pairs, self.spec.batch_size):
            keys += [pair.key for pair in batch]
            values += self._batch(embedder, batch)
        return table_of(
            keys,
            {self.spec.name: values},
            {
                "type": self.spec.type,
                "model": embedder.clip.name,
                "weights_sha256": embedder.clip.weights_sha256,
                "preprocessing": f"open_clip, {embedder.clip.image_size} px",
                "fingerprint": self.fingerprint,
            },
        )

    def _batch(self, embedder: Embedder, batch: Sequence[Pair]) -> list[float | None]:
        style = self.spec.type == "clip-style"
        places = [i for i, p in enumerate(batch) if p.image and (p.origin.reference or not style)]
        found: list[float | None] = [None] * len(batch)
        if not places:
            return found
        chosen = [batch[i] for i in places]
        with naming(chosen):
            images = embedder.images([pair.image for pair in chosen])
        if style:
            others = embedder.images([reference_of(pair, self.references) for pair in chosen])
        else:
            others = embedder.texts([pair.caption for pair in chosen])
        for i, value in zip(places, (images * others).sum(dim=-1).tolist(), strict=True):
            found[i] = round(value, DECIMALS)
        return found


class TextureScorer:
    """Similarity of strokes and colours with the style reference; null for raw pairs."""

    def __init__(self, spec: Any, references: dict[str, bytes]) -> None:
        self.spec, self.references = spec, references
        self.fingerprint = scorer_fingerprint(spec)
        self._seen: dict[str, Tensor] = {}

    def __call__(self, pairs: Iterable[Pair]) -> pa.Table:
        from stylear.encoders.texture import PREPROCESSING, texture_descriptor, texture_similarity

        keys: list[str] = []
        values: list[float | None] = []
        for pair in pairs:
            keys.append(pair.key)
            name = pair.origin.reference
            if not pair.image or name is None:
                values.append(None)
                continue
            if name not in self._seen:
                self._seen[name] = texture_descriptor(reference_of(pair, self.references))
            with naming([pair]):
                found = texture_descriptor(pair.image)
            similarity = texture_similarity(found, self._seen[name])
            values.append(round(float(similarity), DECIMALS))
        told = {"type": "texture", "model": None, "weights_sha256": None}
        told |= {"preprocessing": PREPROCESSING, "fingerprint": self.fingerprint}
        return table_of(keys, {self.spec.name: values}, told)


class PhashScorer:
    """A 64-bit perceptual hash, as 16 hex digits, and the colours of the four quarters."""

    def __init__(self, spec: Any) -> None:
        self.spec, self.fingerprint = spec, scorer_fingerprint(spec)

    def __call__(self, pairs: Iterable[Pair]) -> pa.Table:
        keys: list[str] = []
        hashes: list[str | None] = []
        colours: list[str | None] = []
        for pair in pairs:
            keys.append(pair.key)
            pixels = decode(pair) if pair.image else None
            hashes.append(None if pixels is None else phash(pixels))
            colours.append(None if pixels is None else quarters(pixels))
        told = {"type": "phash", "model": None, "weights_sha256": None}
        told |= {"preprocessing": "grey, 32 px, 8x8 DCT", "fingerprint": self.fingerprint}
        return table_of(keys, {self.spec.name: hashes, COLOUR: colours}, told)


def phash(pixels: NDArray[np.uint8]) -> str:
    """The hash of RGB pixels (H, W, 3): which of the 64 lowest DCT coefficients exceed their median."""
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    low = np.round(cv2.dct(small)[:8, :8], 2)
    bits = np.packbits((low > np.median(low.ravel()[1:])).ravel())
    return bits.tobytes().hex()


def quarters(pixels: NDArray[np.uint8]) -> str:
    """Mean RGB of the four quarters: 12 bytes as hex."""
    import cv2

    small = cv2.resize(pixels, (2, 2), interpolation=cv2.INTER_AREA)
    return bytes(small.tobytes()).hex()


def decode(pair: Pair) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of a stored image. Raises CorpusError naming the key."""
    try:
        with Image.open(io.BytesIO(pair.image), formats=("PNG", "JPEG", "WEBP")) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorpusError(f"pair {pair.key}: its image does not decode: {error}") from error


@contextmanager
def naming(pairs: Iterable[Pair]) -> Iterator[None]:
    """Turn the SourceError of an encoder into a CorpusError with the key of the broken image."""
    try:
        yield
    except SourceError:
        for pair in pairs:
            decode(pair)
        raise


def reference_of(pair: Pair, references: dict[str, bytes]) -> bytes:
    """The image of a pair's style reference. Raises CorpusError when the recipe lacks it."""
    name = pair.origin.reference
    if name not in references:
        raise CorpusError(
            f"pair {pair.key}: its style reference {name!r} is not in the recipe",
            hint="put the reference back, or run again with --redo synthesize",
        )
    return references[name]


class Embedder:
    """One CLIP and the batches it embedded last.

    The last bits of an embedding depend on how many are computed together. So a batch is computed
    whole or remembered whole: what a worker happened to do before decides no score.
    """

    def __init__(self, model: str, device: str) -> None:
        from stylear.encoders.clip import ClipEncoder

        self.clip = ClipEncoder.open(model, device)
        self._seen: OrderedDict[tuple[str, ...], Tensor] = OrderedDict()

    def images(self, images: Sequence[bytes]) -> Tensor:
        """Embeddings (B, D) of encoded images."""
        names = ["image:" + hashlib.sha256(data).hexdigest() for data in images]
        return self._get(
            names, images, lambda new: self.clip.embed_images(self.clip.preprocess(new))
        )

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (B, D) of texts."""
        return self._get([f"text:{text}" for text in texts], texts, self.clip.embed_texts)

    def _get(
        self, names: Sequence[str], items: Sequence[Any], embed: Callable[[list[Any]], Tensor]
    ) -> Tensor:
        distinct = dict(zip(names, items, strict=True))
        batch = tuple(distinct)
        if batch not in self._seen:
            self._seen[batch] = embed(list(distinct.values())).cpu()
        self._seen.move_to_end(batch)
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        place = {name: row for row, name in enumerate(batch)}
        return self._seen[batch][[place[name] for name in names]]


_embedders: dict[tuple[str, str], Embedder] = {}  # of this worker


def embedder_of(model: str, device: str) -> Embedder:
    """The CLIP of that name, opened once in a process; all scorers share it."""
    if (model, device) not in _embedders:
        _embedders[model, device] = Embedder(model, device)
    return _embedders[model, device]


def pick_device(device: str) -> str:
    """`auto` as cuda where there is one, else cpu."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def batches(pairs: Iterable[Pair], size: int) -> Iterator[list[Pair]]:
    """Lists of `size` pairs; the last may be shorter."""
    batch: list[Pair] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def table_of(
    keys: Sequence[str], columns: dict[str, list[Any]], told: dict[str, str | None]
) -> pa.Table:
    """A score table: numbers as float32, hashes as text."""
    import pyarrow as pa

    arrays: dict[str, Any] = {"key": pa.array(keys, pa.string())}
    for name, values in columns.items():
        text = told["type"] == "phash"
        arrays[name] = pa.array(values, pa.string() if text else pa.float32())
    text_of = json.dumps(told, sort_keys=True)
    return pa.table(arrays).replace_schema_metadata({METADATA: text_of.encode()})


def told_of(table: pa.Table) -> dict[str, Any]:
    """What a score table says of itself: type, model, weights_sha256, preprocessing, fingerprint."""
    found: dict[str, Any] = json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))
    return found
