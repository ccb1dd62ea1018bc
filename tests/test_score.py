"""Scoring: the numbers themselves, against the libraries used by hand, and what stands beside them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pictures_folder import encoded
from PIL import Image
from tiny_clip import write_tiny_clip

from curate import score
from curate.recipe import ClipStyleScore, ClipTextScore, PhashScore, TextureScore
from curate.references import StyleReference
from curate.score import open_scorer, phash, quarters, scorer_fingerprint, told_of
from curate.shards import read_table, write_table
from stylear.encoders.texture import texture_similarity
from stylear.errors import CorpusError, WeightsError
from stylear.pair import Origin, Pair, content_id, digest

CAPTIONS = ["a red apple", "the blue boat in the house", "green tree", "zebra", ""]


def pair(caption: str, image: bytes, reference: str | None = None) -> Pair:
    kind: Any = "raw" if reference is None else "stylized"
    origin = Origin(kind, "test", content_id(caption), reference=reference)
    return Pair(digest(caption, len(image), reference), caption, image, origin)


def reference(name: str, image: bytes) -> StyleReference:
    return StyleReference(name, image, "0" * 64, Path(f"{name}.png"), False)


REFERENCES = [reference("warm", encoded(900, 48)), reference("cold", encoded(901, 20))]
RAW = [pair(caption, encoded(n, 24 + n)) for n, caption in enumerate(CAPTIONS)]
STYLIZED = [
    pair(caption, encoded(50 + n, 32), ("warm", "cold")[n % 2])
    for n, caption in enumerate(CAPTIONS)
]
FAILED = replace(pair("no image", b""), key="f" * 32).drop("fetch", "timeout")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny", seed=3)


@pytest.fixture(autouse=True)
def _forget_models() -> Iterator[None]:
    """A worker opens a model once; here each test opens its own."""
    yield
    score._embedders.clear()


def clip_text(model: Path | str, **changes: Any) -> ClipTextScore:
    return ClipTextScore(name="text", type="clip-text", model=str(model), device="cpu", **changes)


def clip_style(model: Path | str, **changes: Any) -> ClipStyleScore:
    return ClipStyleScore(name="look", type="clip-style", model=str(model), device="cpu", **changes)


TEXTURE = TextureScore(name="stroke", type="texture")
PHASH = PhashScore(type="phash")


def scored(spec: Any, pairs: Sequence[Pair]) -> pa.Table:
    return open_scorer(spec, REFERENCES)(iter(pairs))


class ByHand:
    """open_clip as its documentation uses it."""

    def __init__(self, directory: Path) -> None:
        import open_clip

        name = f"local-dir:{directory}"
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(name, local_files_only=True)

    @torch.no_grad()
    def image(self, data: bytes) -> torch.Tensor:
        pixels = self.preprocess(Image.open(io.BytesIO(data)).convert("RGB"))[None]
        found: torch.Tensor = self.model.encode_image(pixels, normalize=True)
        return found

    @torch.no_grad()
    def text(self, caption: str) -> torch.Tensor:
        found: torch.Tensor = self.model.encode_text(self.tokenizer([caption]), normalize=True)
        return found


# --- CLIP -------------------------------------------------------------------------------------


def test_the_text_score_is_open_clip_used_by_hand(clip: Path) -> None:
    by_hand = ByHand(clip)
    expected = [float(by_hand.image(p.image) @ by_hand.text(p.caption).T) for p in RAW]
    found = scored(clip_text(clip), RAW)
    assert found["key"].to_pylist() == [p.key for p in RAW]
    assert found["text"].to_pylist() == pytest.approx(expected, abs=6e-6)  # half of 5 decimals
    assert len({round(value, 3) for value in expected}) == len(RAW)  # five different scores


def test_the_style_score_is_open_clip_used_by_hand(clip: Path) -> None:
    by_hand = ByHand(clip)
    images = {r.id: by_hand.image(r.image) for r in REFERENCES}
    expected = [float(by_hand.image(p.image) @ images[str(p.origin.reference)].T) for p in STYLIZED]
    found = scored(clip_style(clip), STYLIZED)["look"].to_pylist()
    assert found == pytest.approx(expected, abs=6e-6)


def test_batches_move_a_score_by_its_last_digit_at_most(clip: Path) -> None:
    pairs = [*RAW, *STYLIZED]
    one = scored(clip_text(clip, batch_size=1), pairs)["text"].to_pylist()
    for size in (3, 64):
        found = scored(clip_text(clip, batch_size=size), pairs)["text"].to_pylist()
        assert found == pytest.approx(one, abs=1.1e-5)


def test_what_was_scored_before_decides_no_score(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a CLIP whose embeddings depend plainly on how many are computed together."""
    from stylear.encoders.clip import ClipEncoder

    embed = ClipEncoder.embed_images

    def uneven(self: ClipEncoder, pixels: torch.Tensor) -> torch.Tensor:
        return embed(self, pixels) * (1 + len(pixels) / 10)

    monkeypatch.setattr(ClipEncoder, "embed_images", uneven)
    fresh = scored(clip_style(clip), STYLIZED)
    score._embedders.clear()
    scored(clip_style(clip), STYLIZED[:2])  # another shard, of the same references
    scored(clip_text(clip), STYLIZED[1:])
    assert scored(clip_style(clip), STYLIZED).equals(fresh)


def test_scorers_of_one_model_embed_an_image_once(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylear.encoders.clip import ClipEncoder

    seen: list[int] = []
    embed = ClipEncoder.embed_images
    monkeypatch.setattr(
        ClipEncoder,
        "embed_images",
        lambda self, pixels: seen.append(len(pixels)) or embed(self, pixels),
    )
    scored(clip_text(clip), [*STYLIZED, STYLIZED[0]])
    assert seen == [5]
    scored(clip_style(clip), STYLIZED)
    assert seen == [5, 2]  # the two references alone


def test_memory_of_embeddings_is_bounded_and_changes_no_score(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = scored(clip_style(clip, batch_size=2), STYLIZED)
    score._embedders.clear()
    monkeypatch.setattr(score, "REMEMBERED", 1)
    assert scored(clip_style(clip, batch_size=2), STYLIZED).equals(expected)
    [embedder] = score._embedders.values()
    assert len(embedder._seen) == 1


def test_a_model_that_is_not_there_is_named_before_anything_is_scored(tmp_path: Path) -> None:
    spec = clip_text(tmp_path / "absent")
    with pytest.raises(WeightsError, match="absent"):
        scorer_fingerprint(spec)
    with pytest.raises(WeightsError, match="absent"):
        open_scorer(spec, REFERENCES)


# --- texture ----------------------------------------------------------------------------------


def test_the_texture_of_a_reference_with_itself_is_one() -> None:
    pairs = [pair(r.id, r.image, r.id) for r in REFERENCES]
    assert scored(TEXTURE, pairs)["stroke"].to_pylist() == [1.0, 1.0]


def test_the_texture_score_is_the_similarity_with_its_own_reference() -> None:
    images = {r.id: r.image for r in REFERENCES}
    expected = [
        float(texture_similarity(p.image, images[str(p.origin.reference)])) for p in STYLIZED
    ]
    found = scored(TEXTURE, STYLIZED)["stroke"].to_pylist()
    assert found == pytest.approx(expected, abs=6e-6)
    assert all(0 < value < 0.99 for value in found)


# --- hashes -----------------------------------------------------------------------------------


def test_the_perceptual_hash_is_the_sign_of_the_lowest_dct_coefficients() -> None:
    from scipy.fft import dctn

    pixels = np.asarray(Image.open(io.BytesIO(encoded(4, 32))).convert("RGB"))
    grey = np.rint(pixels @ np.array([0.299, 0.587, 0.114]))
    low = dctn(grey, norm="ortho")[:8, :8]
    bits = (low > np.median(low.ravel()[1:])).ravel()
    expected = "".join("1" if bit else "0" for bit in bits)
    found = f"{int(phash(pixels), 16):064b}"
    assert (
        sum(a != b for a, b in zip(found, expected, strict=True)) <= 1
    )  # grey is rounded otherwise
    assert 20 < expected.count("1") < 44


def distance(one: Image.Image, other: Image.Image) -> int:
    a, b = (int(phash(np.asarray(image)), 16) for image in (one, other))
    return (a ^ b).bit_count()


def test_a_copy_is_near_and_another_picture_is_far() -> None:
    first = Image.open(io.BytesIO(encoded(4, 96))).convert("RGB")
    out = io.BytesIO()
    first.resize((64, 64), Image.Resampling.LANCZOS).save(out, "JPEG", quality=60)
    copy = Image.open(io.BytesIO(out.getvalue())).convert("RGB")
    other = Image.open(io.BytesIO(encoded(5, 96))).convert("RGB")
    assert distance(first, first) == 0
    assert distance(first, copy) <= 4
    assert distance(first, other) > 16


def test_colours_are_the_mean_of_the_four_quarters() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2, :2] = (255, 0, 0)
    pixels[:2, 2:] = (0, 255, 0)
    pixels[2:, :2, 2] = [[0, 100], [100, 200]]
    assert quarters(pixels) == "ff000000ff00000064000000"


def test_hashes_do_not_depend_on_how_the_pixels_are_encoded() -> None:
    image = Image.open(io.BytesIO(encoded(4, 32))).convert("RGB")
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=True)
    table = scored(PHASH, [pair("png", encoded(4, 32)), pair("webp", out.getvalue())])
    for column in ("phash", "colour"):
        first, second = table[column].to_pylist()
        assert first == second
        assert len(first) == {"phash": 16, "colour": 24}[column]


# --- nothing to measure -----------------------------------------------------------------------


def test_where_there_is_nothing_to_measure_the_score_is_null(clip: Path) -> None:
    """No image: no score. No reference: no style."""
    pairs = [RAW[0], FAILED, STYLIZED[0]]
    nulls = {
        spec.name: [value is None for value in scored(spec, pairs)[spec.name].to_pylist()]
        for spec in (clip_text(clip), clip_style(clip), TEXTURE, PHASH)
    }
    assert nulls == {
        "text": [False, True, False],
        "look": [True, True, False],
        "stroke": [True, True, False],
        "phash": [False, True, False],
    }
    assert scored(PHASH, pairs)["colour"].to_pylist()[1] is None


def test_a_table_without_pairs_has_the_columns_all_the_same(clip: Path) -> None:
    assert scored(clip_text(clip), []).schema == pa.schema(
        [("key", pa.string()), ("text", pa.float32())]
    )
    assert scored(PHASH, []).schema == pa.schema(
        [("key", pa.string()), ("phash", pa.string()), ("colour", pa.string())]
    )


def test_a_model_that_gives_nan_leaves_nan_for_the_filter_to_judge(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylear.encoders.clip import ClipEncoder

    embed = ClipEncoder.embed_images

    def second_is_nan(self: ClipEncoder, pixels: torch.Tensor) -> torch.Tensor:
        found = embed(self, pixels)
        found[1] = float("nan")
        return found

    expected = scored(clip_text(clip), RAW)["text"].to_pylist()
    score._embedders.clear()
    monkeypatch.setattr(ClipEncoder, "embed_images", second_is_nan)
    found = scored(clip_text(clip), RAW)["text"].to_pylist()
    assert math.isnan(found[1])
    assert [found[0], *found[2:]] == [expected[0], *expected[2:]]


BROKEN = [b"no image at all", encoded(1, 40)[:200], b"GIF89a" + bytes(20)]


@pytest.mark.parametrize("data", BROKEN, ids=["text", "cut", "gif"])
def test_an_image_that_does_not_decode_is_named_by_every_scorer(clip: Path, data: bytes) -> None:
    broken = pair("broken", data, "warm")
    for spec in (clip_text(clip), clip_style(clip), TEXTURE, PHASH):
        with pytest.raises(CorpusError, match=f"pair {broken.key}: its image does not decode"):
            scored(spec, [*STYLIZED, broken])


def test_a_reference_that_the_recipe_lost_is_named(clip: Path) -> None:
    lost = pair("a dog", encoded(1), "gone")
    for spec in (clip_style(clip), TEXTURE):
        with pytest.raises(CorpusError, match="style reference 'gone' is not in the recipe"):
            scored(spec, [lost])


# --- what stands beside the numbers -----------------------------------------------------------


def test_every_table_says_what_it_was_measured_with(clip: Path, tmp_path: Path) -> None:
    from stylear.weights import sha256_of

    told = {}
    for spec in (clip_text(clip), clip_style(clip), TEXTURE, PHASH):
        path = tmp_path / f"{spec.name}.parquet"
        write_table(path, scored(spec, STYLIZED))
        told[spec.name] = told_of(read_table(path))  # it survives the file
        assert told[spec.name].pop("fingerprint") == scorer_fingerprint(spec)
    weights = sha256_of(clip / "open_clip_model.safetensors")
    assert told == {
        "text": {
            "type": "clip-text",
            "model": "tiny",
            "weights_sha256": weights,
            "preprocessing": "open_clip, 32 px",
        },
        "look": {
            "type": "clip-style",
            "model": "tiny",
            "weights_sha256": weights,
            "preprocessing": "open_clip, 32 px",
        },
        "stroke": {
            "type": "texture",
            "model": None,
            "weights_sha256": None,
            "preprocessing": "rgb on white, 128 px, Lab, 3 scales, version 1",
        },
        "phash": {
            "type": "phash",
            "model": None,
            "weights_sha256": None,
            "preprocessing": "grey, 32 px, 8x8 DCT",
        },
    }


def test_other_weights_or_another_tokenizer_are_another_fingerprint(tmp_path: Path) -> None:
    one, same = write_tiny_clip(tmp_path / "one"), write_tiny_clip(tmp_path / "same")
    other = write_tiny_clip(tmp_path / "other", seed=1)
    first = scorer_fingerprint(clip_text(one))
    assert scorer_fingerprint(clip_text(same)) == first
    assert scorer_fingerprint(clip_style(one)) != first
    assert scorer_fingerprint(clip_text(other)) != first
    with (same / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert scorer_fingerprint(clip_text(same)) != first


def test_batches_hold_every_pair_once() -> None:
    sizes = [len(batch) for batch in score.batches(iter(RAW), 2)]
    assert sizes == [2, 2, 1]
    assert [p.key for batch in score.batches(iter(RAW), 2) for p in batch] == [p.key for p in RAW]
    assert list(score.batches(iter([]), 2)) == []


def test_the_device_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert score.pick_device("cpu") == "cpu"
    assert score.pick_device("cuda:1") == "cuda:1"
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda there=there: there))
        assert score.pick_device("auto") == device
