"""Scoring: the numbers themselves, against the libraries used by hand, and what stands beside them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from builders.pictures_folder import encoded
from builders.tiny_clip import write_tiny_clip
from PIL import Image

from stylear.curate.corpus.layout import ShardKind
from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.recipe import ClipImageScore, ClipTextScore, PhashScore, TextureScore
from stylear.curate.references import StyleReference
from stylear.curate.score import open_scorer, read_metadata, scorer_fingerprint
from stylear.curate.score.device import pick_dtype, resolve_device
from stylear.curate.score.phash import compute_phash, quarter_colours
from stylear.curate.score.scorer import Context
from stylear.curate.score.sweep import ShardToScore, score_shards
from stylear.device import pick_device
from stylear.encoders.texture import texture_similarity
from stylear.errors import CorpusError, StylearError, WeightsError
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


def clip_text(model: Path | str, **changes: Any) -> ClipTextScore:
    return ClipTextScore(name="text", type="clip-text", model=str(model), device="cpu", **changes)


def clip_image(model: Path | str, **changes: Any) -> ClipImageScore:
    return ClipImageScore(name="look", type="clip-image", model=str(model), device="cpu", **changes)


TEXTURE = TextureScore(name="stroke", type="texture")
PHASH = PhashScore(type="phash")


def swept(
    specs: Sequence[Any], pairs: Sequence[Pair], context: Context | None = None
) -> dict[str, pa.Table]:
    """The tables of scorers that pass one shard together."""
    context = context or Context(REFERENCES)
    kind: ShardKind = pairs[0].origin.kind if pairs else "raw"
    shard = ShardToScore(kind, iter(pairs), [open_scorer(spec, context) for spec in specs])
    [tables] = score_shards([shard], context, lambda number, tables: tables)
    return tables


def scored(spec: Any, pairs: Sequence[Pair]) -> pa.Table:
    return swept([spec], pairs)[spec.name]


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
    found = scored(clip_image(clip), STYLIZED)["look"].to_pylist()
    assert found == pytest.approx(expected, abs=6e-6)


def test_batches_move_a_score_by_its_last_digit_at_most(clip: Path) -> None:
    pairs = [*RAW, *STYLIZED]
    one = scored(clip_text(clip, batch_size=1), pairs)["text"].to_pylist()
    for size in (3, 64):
        found = scored(clip_text(clip, batch_size=size), pairs)["text"].to_pylist()
        assert found == pytest.approx(one, abs=1.1e-5)


Seen = list[int]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The sizes of the batches of images that were embedded, by a CLIP whose embeddings depend plainly
    on how many are computed together."""
    from stylear.encoders.clip import ClipEncoder

    seen: Seen = []
    embed = ClipEncoder.embed_images

    def uneven(self: ClipEncoder, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return embed(self, pixels) * (1 + len(pixels) / 10)

    monkeypatch.setattr(ClipEncoder, "embed_images", uneven)
    return seen


def test_what_runs_beside_it_or_ran_before_decides_no_score(clip: Path, batches: Seen) -> None:
    text, look = clip_text(clip, batch_size=2), clip_image(clip, batch_size=2)
    alone = {spec.name: swept([spec], STYLIZED)[spec.name] for spec in (text, look)}
    worker = Context(REFERENCES)
    swept([look], STYLIZED[:3], worker)  # another shard, of the same references
    swept([text, TEXTURE], STYLIZED[1:], worker)
    batches.clear()
    assert swept([look, TEXTURE, text, PHASH], STYLIZED, worker) == {
        **swept([PHASH, TEXTURE], STYLIZED),
        **alone,
    }
    assert batches == [2, 2, 1]


def test_scorers_of_one_model_embed_an_image_once_and_a_reference_once(
    clip: Path, batches: Seen
) -> None:
    worker = Context(REFERENCES)
    swept([clip_text(clip)], STYLIZED, worker)
    assert batches == [5]
    swept([clip_text(clip), clip_image(clip)], STYLIZED, worker)
    assert batches == [5, 5, 1, 1]  # the two references, each alone
    swept([clip_text(clip), clip_image(clip)], STYLIZED, worker)
    assert batches == [5, 5, 1, 1, 5]


def test_batches_are_of_images_so_that_failed_downloads_leave_no_gaps(
    clip: Path, batches: Seen
) -> None:
    failed = [replace(FAILED, key=f"{n:032d}") for n in range(3)]
    swept([clip_text(clip, batch_size=2)], [RAW[0], *failed, RAW[1], RAW[2]])
    assert batches == [2, 1]


def test_a_raw_shard_has_no_style_and_is_not_embedded_for_it(clip: Path, batches: Seen) -> None:
    assert scored(clip_image(clip), RAW)["look"].to_pylist() == [None] * len(RAW)
    assert batches == []


def test_an_image_is_decoded_once_for_all_scorers(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylear.curate.score import sweep as module

    decoded: list[str] = []
    decode = module.decode_pair_image

    def counted(pair: Pair) -> Image.Image:
        decoded.append(pair.key)
        return decode(pair)

    monkeypatch.setattr(module, "decode_pair_image", counted)
    swept([clip_text(clip), clip_image(clip), TEXTURE, PHASH], STYLIZED)
    assert sorted(decoded) == sorted(pair.key for pair in STYLIZED)


def test_shards_of_one_sweep_are_scored_as_each_would_be_alone(clip: Path, batches: Seen) -> None:
    context = Context(REFERENCES)
    scorers = [open_scorer(spec, context) for spec in (clip_text(clip, batch_size=2), PHASH)]
    parts = [RAW[:3], [], [FAILED], RAW[3:]]
    shards = [ShardToScore("raw", iter(part), scorers) for part in parts]
    found = score_shards(shards, context, lambda number, tables: (number, tables))
    alone = [swept([clip_text(clip, batch_size=2), PHASH], part) for part in parts]
    assert found == list(enumerate(alone))
    assert batches[:3] == [2, 1, 2]  # no batch crosses a border


def test_a_model_that_is_not_there_is_named_before_anything_is_scored(tmp_path: Path) -> None:
    spec = clip_text(tmp_path / "absent")
    with pytest.raises(WeightsError, match="absent"):
        scorer_fingerprint(spec)
    with pytest.raises(WeightsError, match="absent"):
        open_scorer(spec, Context(REFERENCES))


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
    found = f"{int(compute_phash(pixels), 16):064b}"
    assert (
        sum(a != b for a, b in zip(found, expected, strict=True)) <= 1
    )  # grey is rounded otherwise
    assert 20 < expected.count("1") < 44


def distance(one: Image.Image, other: Image.Image) -> int:
    a, b = (int(compute_phash(np.asarray(image)), 16) for image in (one, other))
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
    assert quarter_colours(pixels) == "ff000000ff00000064000000"


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
    specs = (clip_text(clip), clip_image(clip), TEXTURE, PHASH)
    stray = replace(STYLIZED[1], origin=replace(STYLIZED[1].origin, reference=None))
    found = swept(specs, [STYLIZED[0], FAILED, stray])
    nulls = {
        spec.name: [value is None for value in found[spec.name][spec.name].to_pylist()]
        for spec in specs
    }
    assert nulls == {
        "text": [False, True, False],
        "look": [False, True, True],
        "stroke": [False, True, True],
        "phash": [False, True, False],
    }
    assert found["phash"]["colour"].to_pylist()[1] is None
    assert found["text"]["text.truncated"].to_pylist() == [False, None, False]


def test_a_table_without_pairs_has_the_columns_all_the_same(clip: Path) -> None:
    assert scored(clip_text(clip), []).schema == pa.schema(
        [("key", pa.string()), ("text", pa.float32()), ("text.truncated", pa.bool_())]
    )
    assert scored(clip_image(clip), []).schema == pa.schema(
        [("key", pa.string()), ("look", pa.float32())]
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
    monkeypatch.setattr(ClipEncoder, "embed_images", second_is_nan)
    found = scored(clip_text(clip), RAW)["text"].to_pylist()
    assert math.isnan(found[1])
    assert [found[0], *found[2:]] == [expected[0], *expected[2:]]


def test_captions_longer_than_the_text_encoder_reads_are_marked(clip: Path) -> None:
    """The tiny model reads 12 tokens, of which 2 are its own."""
    words = ["a dog " * 5, "a dog " * 5 + "red", "a dog " * 40]
    found = scored(clip_text(clip), [pair(text, encoded(n)) for n, text in enumerate(words)])
    assert found["text.truncated"].to_pylist() == [False, True, True]
    assert read_metadata(found)["captions_truncated"] == 2
    assert "captions_truncated" not in read_metadata(scored(clip_text(clip), RAW))


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """A device that holds two images; the sizes of what it did hold."""
    from stylear.encoders.clip import ClipEncoder

    held: Seen = []
    embed = ClipEncoder.embed_images

    def small(self: ClipEncoder, pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("out of memory")
        held.append(len(pixels))
        return embed(self, pixels)

    monkeypatch.setattr(ClipEncoder, "embed_images", small)
    return held


def test_a_batch_that_does_not_fit_is_halved_and_the_table_says_so(
    clip: Path, small_memory: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    context = Context(REFERENCES)
    found = swept([clip_text(clip), PHASH], RAW, context)
    assert small_memory == [2, 2, 1]
    assert read_metadata(found["text"])["batch_size_after_oom"] == 2
    assert "batch_size_after_oom" not in read_metadata(found["phash"])
    assert found["text"].equals(swept([clip_text(clip, batch_size=2)], RAW)["text"])
    assert capsys.readouterr().err.splitlines() == [
        "out of GPU memory with 5 images; continuing with 3",
        "out of GPU memory with 3 images; continuing with 2",
    ]
    small_memory.clear()
    swept([clip_text(clip)], RAW, context)  # what did not fit is not tried again
    assert small_memory == [2, 2, 1]


def test_one_image_that_does_not_fit_is_an_error_that_says_what_to_do(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylear.encoders.clip import ClipEncoder

    def full(self: ClipEncoder, pixels: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(ClipEncoder, "embed_images", full)
    with pytest.raises(StylearError, match="out of GPU memory with one image") as caught:
        scored(clip_text(clip), RAW)
    assert caught.value.hint is not None
    assert "device: cpu" in caught.value.hint


BROKEN = [b"no image at all", encoded(1, 40)[:200], b"GIF89a" + bytes(20)]


@pytest.mark.parametrize("data", BROKEN, ids=["text", "cut", "gif"])
def test_an_image_that_does_not_decode_is_named_by_every_scorer(clip: Path, data: bytes) -> None:
    broken = pair("broken", data, "warm")
    for spec in (clip_text(clip), clip_image(clip), TEXTURE, PHASH):
        with pytest.raises(CorpusError, match=f"pair {broken.key}: its image does not decode"):
            scored(spec, [*STYLIZED, broken])


def test_a_reference_that_the_recipe_lost_is_named(clip: Path) -> None:
    lost = pair("a dog", encoded(1), "gone")
    for spec in (clip_image(clip), TEXTURE):
        with pytest.raises(CorpusError, match="style reference 'gone' is not in the recipe"):
            scored(spec, [lost])


# --- what stands beside the numbers -----------------------------------------------------------


def test_every_table_says_what_it_was_measured_with(clip: Path, tmp_path: Path) -> None:
    from stylear.weights.files import sha256_of

    told = {}
    for spec in (clip_text(clip), clip_image(clip), TEXTURE, PHASH):
        path = tmp_path / f"{spec.name}.parquet"
        write_table(path, scored(spec, STYLIZED))
        told[spec.name] = read_metadata(read_table(path))  # it survives the file
        assert told[spec.name].pop("fingerprint") == scorer_fingerprint(spec)
    weights = sha256_of(clip / "open_clip_model.safetensors")
    model = {
        "model": "tiny",
        "weights_sha256": weights,
        "dtype": "float32",
        "preprocessing": "open_clip, 32 px, shortest, bicubic, mean 0.5 0.4 0.3, std 0.2 0.25 0.3",
    }
    none = {"model": None, "weights_sha256": None, "dtype": None}
    assert told == {
        "text": {"type": "clip-text", **model},
        "look": {"type": "clip-image", **model},
        "stroke": {
            "type": "texture",
            **none,
            "preprocessing": "rgb on white, 128 px, Lab, 3 scales, version 1",
        },
        "phash": {"type": "phash", **none, "preprocessing": "grey, 32 px, 8x8 DCT"},
    }


def test_other_weights_or_another_tokenizer_are_another_fingerprint(tmp_path: Path) -> None:
    one, same = write_tiny_clip(tmp_path / "one"), write_tiny_clip(tmp_path / "same")
    other = write_tiny_clip(tmp_path / "other", seed=1)
    first = scorer_fingerprint(clip_text(one))
    assert scorer_fingerprint(clip_text(same)) == first
    assert scorer_fingerprint(clip_image(one)) != first
    assert scorer_fingerprint(clip_text(other)) != first
    with (same / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert scorer_fingerprint(clip_text(same)) != first


class SimpleDevice(SimpleNamespace):
    """Settings with a device and nothing else."""

    def __init__(self, device: str) -> None:
        super().__init__(device=device)

    def model_copy(self, update: dict[str, str]) -> SimpleDevice:
        return SimpleDevice(update["device"])


def test_device_and_precision_are_those_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device(SimpleDevice("cuda:1")).device == "cuda:1"  # asked for when work begins
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda there=there: there))
        assert pick_device("auto") == device
        assert resolve_device(SimpleDevice("auto")).device == device
    assert pick_dtype("auto", "cpu") == "float32"
    assert pick_dtype("auto", "cuda:1") == "bfloat16"
    assert pick_dtype("float16", "cpu") == "float16"
