"""Encoded files: what is in them, what they depend on, and encoding that was killed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.tiny_corpus import CAPTIONS, pair, write_tiny_corpus
from typer.testing import CliRunner

from stylear.curate.corpus.shards import read_shard, write_shard
from stylear.errors import CorpusError, UsageError
from stylear.model.open import load_model
from stylear.model.style_model import StyleModel
from stylear.train import encode, encode_command
from stylear.train.cli import app
from stylear.train.encode import EncodedShard, encode_corpus
from stylear.train.pictures import decode_picture, picture_to_pixels


@pytest.fixture
def model(place: Path) -> StyleModel:
    return load_model(place / "model")


def encode_train(model: StyleModel, corpus: Path, cache: Path, copies: int = 1) -> EncodedShard:
    [shard] = encode_corpus(model, corpus, "train", cache, copies=copies, features=True)
    return shard


def read_tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_hold_the_tokenizer_s_codes_and_the_encoder_s_features(
    model: StyleModel, place: Path, tmp_path: Path
) -> None:
    shard = encode_train(model, place / "corpus", tmp_path)
    pictures = [decode_picture(pair.image) for pair in read_shard(place / "corpus/train/00000.tar")]
    with torch.inference_mode():
        pixels = torch.stack([picture_to_pixels(picture, 32) for picture in pictures])
        codes = model.vq.encode(pixels)
        features = model.style_features(pictures).half()
    stored_codes = np.load(shard.folder / "4x4" / "codes.npy")
    assert stored_codes.dtype == np.uint16
    assert stored_codes[:, 0].tolist() == codes.tolist()
    stored = np.load(shard.folder / "4x4" / "features.npy")
    assert stored.dtype == np.float16
    assert np.array_equal(stored, features.numpy())
    assert shard.rows == 12
    assert shard.bytes == sum(map(len, read_tree(shard.folder).values()))


def test_encoding_twice_reads_the_cache(model: StyleModel, place: Path, tmp_path: Path) -> None:
    first = encode_train(model, place / "corpus", tmp_path, copies=2)
    before = (first.folder / "4x4" / "codes.npy").stat().st_mtime_ns
    assert encode_train(model, place / "corpus", tmp_path, copies=2) == first
    assert (first.folder / "4x4" / "codes.npy").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]
    assert encode_train(model, place / "corpus", tmp_path, copies=1) != first


def test_another_tokenizer_or_encoder_has_files_of_its_own_and_is_said(
    model: StyleModel, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = encode_train(model, place / "corpus", tmp_path)
    codes = model.vq.quantize.embedding.weight
    codes.data = codes.data.flip(0)  # the sum of its weights is the same; the codes are not
    second = encode_train(model, place / "corpus", tmp_path)
    assert second.folder != first.folder
    assert "encoded with tokenizer_sha256" in capsys.readouterr().err
    assert not np.array_equal(*(np.load(s.folder / "4x4/codes.npy") for s in (first, second)))
    assert model.clip is not None
    model.clip.preprocessing += ", otherwise"
    third = encode_train(model, place / "corpus", tmp_path)
    assert third.folder not in (first.folder, second.folder)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_changed_image_is_encoded_again(model: StyleModel, tmp_path: Path) -> None:
    folders = []
    for seed in (1, 2):
        write_shard(tmp_path / "corpus" / "train", 0, [pair(CAPTIONS[0], None, seed)])
        folders.append(encode_train(model, tmp_path / "corpus", tmp_path / "cache").folder)
    assert folders[0] != folders[1]


def test_interrupted_encoding_goes_on_with_the_shards_that_are_missing(
    model: StyleModel, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is tidied up on the way out, so a killed process leaves the same files."""
    for number, caption in enumerate(CAPTIONS[:2]):
        write_shard(tmp_path / "corpus" / "train", number, [pair(caption, None, number)])
    original = encode.encode_batch

    def encode_batch(model: StyleModel, batch: list[Any], encoding: Any) -> Any:
        if batch[0].pair.caption == CAPTIONS[1]:
            raise KeyboardInterrupt
        return original(model, batch, encoding)

    monkeypatch.setattr(encode, "encode_batch", encode_batch)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(model, tmp_path / "corpus", "train", killed, copies=1, features=True)
    monkeypatch.undo()
    [first] = [path for path in killed.iterdir() if not path.name.startswith(".")]
    before = first.stat().st_mtime_ns
    for cache in (killed, whole):
        encode_corpus(model, tmp_path / "corpus", "train", cache, copies=1, features=True)
    assert read_tree(killed) == read_tree(whole)
    assert first.stat().st_mtime_ns == before


def test_a_shard_that_another_process_encodes_is_waited_for(
    model: StyleModel, place: Path, tmp_path: Path
) -> None:
    shard = encode_train(model, place / "corpus", tmp_path / "done")
    folder = tmp_path / "cache" / shard.folder.name
    folder.parent.mkdir()
    script = (
        "import fcntl, os, sys, shutil\n"
        "lock = open(sys.argv[3], 'w'); fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('locked', flush=True); sys.stdin.readline()\n"
        "shutil.copytree(sys.argv[1], sys.argv[2])\n"
    )
    lock = folder.with_name(f".{folder.name}.lock")
    with subprocess.Popen(
        [sys.executable, "-c", script, shard.folder, folder, lock],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"locked\n"
        other.stdin.write(b"go on\n")
        other.stdin.close()
        model.vq.encode = None  # type: ignore[method-assign]  # nothing is left to encode
        assert encode_train(model, place / "corpus", tmp_path / "cache").rows == 12
    assert other.returncode == 0


def test_pictures_take_the_bucket_of_the_nearest_aspect_ratio(
    model: StyleModel, tmp_path: Path
) -> None:
    from builders.wide_pictures import wide_pair

    sizes = [(32, 32), (48, 24), (25, 50), (40, 36)]  # width, height
    pairs = [wide_pair(number, size) for number, size in enumerate(sizes)]
    write_shard(tmp_path / "corpus" / "train", 0, pairs)
    model.layout.vocabulary["<reserved08801>"] = model.layout.vocabulary["<reserved08802>"]
    [shard] = encode_corpus(
        model,
        tmp_path / "corpus",
        "train",
        tmp_path / "cache",
        copies=2,
        features=True,
        buckets=[(32, 32), (16, 32), (32, 16)],
    )
    keys = {part.folder.name: part.read_table()["key"].to_pylist() for part in shard.parts}
    assert keys == {
        "4x4": [pairs[0].key, pairs[3].key],
        "2x4": [pairs[1].key],
        "4x2": [pairs[2].key],
    }
    assert np.load(shard.folder / "2x4" / "codes.npy").shape == (1, 2, 2, 4)


def test_a_bucket_that_the_model_does_not_know_is_refused(
    model: StyleModel, place: Path, tmp_path: Path
) -> None:
    for size, message in (((20, 32), "multiple of 16"), ((16, 32), "has a token for, found 16")):
        with pytest.raises(UsageError, match=message):
            encode_corpus(
                model,
                place / "corpus",
                "train",
                tmp_path,
                copies=1,
                features=False,
                buckets=[size],
            )


def test_a_corpus_without_pairs_and_a_damaged_image_are_named(
    model: StyleModel, tmp_path: Path
) -> None:
    dropped = replace(pair(CAPTIONS[0], None, 1), image=b"").drop("fetch", "timeout")
    for pairs in ([], [dropped]):
        write_shard(tmp_path / "empty" / "train", 0, pairs)
        with pytest.raises(CorpusError, match="expected pairs to train on, found none"):
            encode_train(model, tmp_path / "empty", tmp_path / "cache")
    write_tiny_corpus(tmp_path / "corpus")
    tar = tmp_path / "corpus" / "train" / "00000.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1  # inside the first image
    tar.write_bytes(data)
    with pytest.raises(CorpusError, match="differs from the hash in its table"):
        encode_train(model, tmp_path / "corpus", tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("codes.npy", lambda data: data[:-1]),
        ("codes.npy", lambda data: data.replace(b"<u2", b"|O ")),
        ("features.npy", lambda data: b"\x93NUMPY" + data[6:40]),
        ("rows.arrow", lambda data: data[:-9]),
    ],
)
def test_damaged_files_are_named_when_they_are_opened(
    model: StyleModel, place: Path, tmp_path: Path, name: str, change: object
) -> None:
    from stylear.train.data import open_encoded

    shard = encode_train(model, place / "corpus", tmp_path)
    path = shard.folder / "4x4" / name
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(CorpusError, match=name.replace(".", r"\.")) as error:
        open_encoded(model, [place / "corpus"], "train", tmp_path)
    assert error.value.hint == "remove its directory; it is encoded again"


def test_the_command_states_the_bytes_of_an_image(place: Path) -> None:
    words = ["encode", str(place / "corpus"), "--model", str(place / "model"), "--json"]
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 0, outcome.output
    result = json.loads(outcome.stdout)
    size = sum(map(len, read_tree(place / "corpus-encoded").values()))
    assert result["out"] == str(place / "corpus-encoded")
    assert (result["images"], result["bytes"]) == (16, size)
    assert result["bytes_per_image"] == round(size / 16)
    codes = json.loads(
        CliRunner().invoke(app, [*words, "--features", "compute", "--out", str(place / "c")]).stdout
    )
    assert codes["bytes"] < result["bytes"]


def test_wrong_options_of_the_command_are_explained(place: Path) -> None:
    words = ["encode", str(place / "corpus"), "--model", str(place / "model")]
    for more, message in (
        (["--bucket", "512"], "--bucket: expected HEIGHTxWIDTH in pixels, e.g. 512x768, found 512"),
        (["--features", "none"], "--features: expected one of cache, compute, found 'none'"),
    ):
        outcome = CliRunner().invoke(app, [*words, *more])
        assert isinstance(outcome.exception, UsageError)
        assert str(outcome.exception) == message


def test_each_process_of_torchrun_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_command, "pick_device", lambda name: name)
    assert encode_command.choose_device("cuda") == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert encode_command.choose_device("cuda") == "cuda:3"
    assert encode_command.choose_device("cpu") == "cpu"
