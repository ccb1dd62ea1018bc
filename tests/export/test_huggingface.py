"""The Hugging Face folder is read by `datasets`: streamed and not, with its card and without."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.handmade_corpus import raw_pair, stylized_pair, write_corpus
from builders.tiny_corpus import picture
from PIL import Image

from stylear.curate.audit.manifest import write_manifest
from stylear.curate.export.exporter import export
from stylear.curate.export.record import FIELDS
from stylear.errors import UsageError
from stylear.pair import digest


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The library, offline, with its cache in a folder of the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True, raising=False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield datasets
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def exported(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("huggingface") / "out"
    export(corpus, "huggingface", out)
    return out


def keys(rows: Any) -> list[str]:
    return [row["__key__"] for row in rows]


TRAIN = [
    digest("raw", 0), digest("raw", 1), digest("stylized", 0, "warm--1"),
    digest("raw", 2), digest("stylized", 1, "cold"),
]  # fmt: skip


@pytest.mark.parametrize("streaming", [True, False])
def test_the_folder_is_loaded_with_both_splits(
    exported: Path, datasets: Any, streaming: bool
) -> None:
    dataset = datasets.load_dataset(str(exported), streaming=streaming)
    assert list(dataset) == ["train", "validation"]
    assert keys(dataset["train"]) == TRAIN
    assert keys(dataset["validation"]) == [digest("raw", 3), digest("stylized", 3, "ink--2")]


def test_shards_are_streamed_without_the_card(exported: Path, datasets: Any) -> None:
    files = {"train": str(exported / "data" / "train-*.tar")}
    rows = list(
        datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
    )
    assert keys(rows) == TRAIN
    stylized = rows[2]
    expected = Image.open(io.BytesIO(picture(100)))
    assert stylized["png"].tobytes() == expected.tobytes()
    assert stylized["txt"] == "thing 0"
    record = stylized["json"]
    assert list(record) == list(FIELDS)
    shown = {name: record[name] for name in ("seed", "model", "reference", "licence", "width")}
    assert shown == {
        "seed": "4611686018427387904",
        "model": "sdxl-base-1.0",
        "reference": "warm--1",
        "licence": "",
        "width": 32,
    }
    assert json.loads(record["details"])["model_sha256"] == "ab" * 32


def test_types_do_not_depend_on_which_pairs_come_first(tmp_path: Path, datasets: Any) -> None:
    """Of the first five samples, which decide, none is stylized and none has a licence."""
    first = [raw_pair(n) for n in range(6)]
    corpus = write_corpus(tmp_path, {"train": [[*first, stylized_pair(7)]]})
    export(corpus, "huggingface", tmp_path / "out")
    files = str(tmp_path / "out" / "data" / "*.tar")
    rows = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=False)
    assert [row["json"]["reference"] for row in rows] == [*[""] * 6, "warm--1"]


def test_the_features_of_the_card_are_those_that_are_inferred(
    exported: Path, datasets: Any
) -> None:
    files = {"train": str(exported / "data" / "train-*.tar")}
    inferred = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
    declared = datasets.load_dataset(str(exported), split="train", streaming=True)
    assert inferred.features == declared.features


def test_pictures_of_two_encodings_are_refused_with_a_way_out(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "JPEG")
    jpeg = raw_pair(1, image=buffer.getvalue())
    corpus = write_corpus(tmp_path, {"train": [[raw_pair(0), jpeg]]})
    with pytest.raises(UsageError, match="found jpg, png") as caught:
        export(corpus, "huggingface", tmp_path / "out")
    assert caught.value.hint == ("export with --to parquet, which has one column for all of them")
    assert not (tmp_path / "out").exists()


def test_a_real_corpus_is_loaded_with_its_preference_pairs(
    finished: Path, tmp_path: Path, datasets: Any
) -> None:
    import shutil

    corpus = tmp_path / "corpus"
    shutil.copytree(finished, corpus)
    manifest = json.loads(write_manifest(corpus).read_text("utf-8"))
    export(corpus, "huggingface", tmp_path / "out")
    dataset = datasets.load_dataset(str(tmp_path / "out"), streaming=True)
    sizes = {split: len(list(rows)) for split, rows in dataset.items()}
    assert sizes == {
        "train": manifest["splits"]["train"]["pairs"],
        "validation": manifest["splits"]["val"]["pairs"],
    }
    pairs = list(
        datasets.load_dataset(str(tmp_path / "out"), "preferences", split="train", streaming=True)
    )
    assert len(pairs) == manifest["counts"]["preferences"] > 0
    assert pairs[0]["chosen.png"].size == pairs[0]["rejected.png"].size == (24, 24)
