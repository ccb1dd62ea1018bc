"""Scores of what cannot be measured: no image, NaN, no memory, broken files; and the metadata."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch
from builders.pictures_folder import encoded
from builders.scored_pairs import (
    FAILED,
    PHASH,
    RAW,
    REFERENCES,
    STYLIZED,
    TEXTURE,
    clip_image,
    clip_text,
    pair,
    scored,
    swept,
)
from builders.tiny_clip import write_tiny_clip

from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.score import compute_scorer_fingerprint, read_metadata
from stylear.curate.score.device import pick_dtype, resolve_device
from stylear.curate.score.scorer import Context
from stylear.device import pick_device
from stylear.errors import CorpusError, StylearError

Seen = list[int]


def test_where_there_is_nothing_to_measure_the_score_is_null(clip: Path) -> None:
    """No image: no score. No reference: no style."""
    specs = (clip_text(clip), clip_image(clip), TEXTURE, PHASH)
    stray = replace(STYLIZED[1], origin=replace(STYLIZED[1].origin, reference=None))
    tables = swept(specs, [STYLIZED[0], FAILED, stray])
    nulls = {
        spec.name: [value is None for value in tables[spec.name][spec.name].to_pylist()]
        for spec in specs
    }
    assert nulls == {
        "text": [False, True, False],
        "look": [False, True, True],
        "stroke": [False, True, True],
        "phash": [False, True, False],
    }
    assert tables["phash"]["colour"].to_pylist()[1] is None
    assert tables["text"]["text.truncated"].to_pylist() == [False, None, False]


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
        embeds = embed(self, pixels)
        embeds[1] = float("nan")
        return embeds

    expected = scored(clip_text(clip), RAW)["text"].to_pylist()
    monkeypatch.setattr(ClipEncoder, "embed_images", second_is_nan)
    scores = scored(clip_text(clip), RAW)["text"].to_pylist()
    assert math.isnan(scores[1])
    assert [scores[0], *scores[2:]] == [expected[0], *expected[2:]]


def test_captions_longer_than_the_text_encoder_reads_are_marked(clip: Path) -> None:
    """The tiny model reads 12 tokens, of which 2 are its own."""
    words = ["a dog " * 5, "a dog " * 5 + "red", "a dog " * 40]
    table = scored(clip_text(clip), [pair(text, encoded(n)) for n, text in enumerate(words)])
    assert table["text.truncated"].to_pylist() == [False, True, True]
    assert read_metadata(table)["captions_truncated"] == 2
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
    tables = swept([clip_text(clip), PHASH], RAW, context)
    assert small_memory == [2, 2, 1]
    assert read_metadata(tables["text"])["batch_size_after_oom"] == 2
    assert "batch_size_after_oom" not in read_metadata(tables["phash"])
    assert tables["text"].equals(swept([clip_text(clip, batch_size=2)], RAW)["text"])
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


def test_every_table_says_what_it_was_measured_with(clip: Path, tmp_path: Path) -> None:
    from stylear.weights.files import hash_path

    metadata = {}
    for spec in (clip_text(clip), clip_image(clip), TEXTURE, PHASH):
        path = tmp_path / f"{spec.name}.parquet"
        write_table(path, scored(spec, STYLIZED))
        metadata[spec.name] = read_metadata(read_table(path))  # it survives the file
        assert metadata[spec.name].pop("fingerprint") == compute_scorer_fingerprint(spec)
    weights = hash_path(clip / "open_clip_model.safetensors")
    model = {
        "model": "tiny",
        "weights_sha256": weights,
        "dtype": "float32",
        "preprocessing": "open_clip, 32 px, shortest, bicubic, mean 0.5 0.4 0.3, std 0.2 0.25 0.3",
    }
    none = {"model": None, "weights_sha256": None, "dtype": None}
    assert metadata == {
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
    first = compute_scorer_fingerprint(clip_text(one))
    assert compute_scorer_fingerprint(clip_text(same)) == first
    assert compute_scorer_fingerprint(clip_image(one)) != first
    assert compute_scorer_fingerprint(clip_text(other)) != first
    with (same / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert compute_scorer_fingerprint(clip_text(same)) != first


class SimpleDevice(SimpleNamespace):
    """Settings with a device and nothing else."""

    def __init__(self, device: str) -> None:
        super().__init__(device=device)

    def model_copy(self, update: dict[str, str]) -> SimpleDevice:
        return SimpleDevice(update["device"])


def test_device_and_precision_are_those_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device(SimpleDevice("cuda:1")).device == "cuda:1"  # asked for when work begins
    for is_available, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(
            torch,
            "cuda",
            SimpleNamespace(is_available=lambda is_available=is_available: is_available),
        )
        assert pick_device("auto") == device
        assert resolve_device(SimpleDevice("auto")).device == device
    assert pick_dtype("auto", "cpu") == "float32"
    assert pick_dtype("auto", "cuda:1") == "bfloat16"
    assert pick_dtype("float16", "cpu") == "float16"
