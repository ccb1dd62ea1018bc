"""Parquet exports: pyarrow reads every byte, `datasets` decodes the pictures, row groups are bounded."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.handmade_corpus import raw_pair, write_corpus
from builders.tiny_corpus import picture
from PIL import Image

from stylear import curate
from stylear.curate.audit.manifest import write_manifest
from stylear.curate.export import row_groups
from stylear.curate.export.exporter import export
from stylear.curate.export.record import FIELDS
from stylear.pair import digest

FILES = [
    "data/train-00000-of-00002.parquet",
    "data/train-00001-of-00002.parquet",
    "data/validation-00000-of-00001.parquet",
]


@pytest.fixture(scope="module")
def exported(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parquet") / "out"
    export(corpus, "parquet", out)
    return out


def test_pyarrow_reads_records_and_the_very_bytes_of_pictures(exported: Path) -> None:
    files = sorted(p.relative_to(exported).as_posix() for p in exported.rglob("*.parquet"))
    assert files == FILES
    rows = pq.read_table(exported / FILES[0]).to_pylist()
    assert [row["key"] for row in rows] == [
        digest("raw", 0),
        digest("raw", 1),
        digest("stylized", 0, "warm--1"),
    ]
    assert list(rows[0]) == ["image", *FIELDS]
    assert rows[1]["image"] == {"bytes": picture(1), "path": f"{digest('raw', 1)}.png"}
    assert rows[2]["seed"] == "4611686018427387904"
    assert (rows[0]["seed"], rows[0]["reference"], rows[0]["split"]) == (None, None, "train")


def test_datasets_decodes_the_pictures(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    dataset = datasets.load_dataset(str(exported), streaming=True)
    rows = {split: list(part) for split, part in dataset.items()}
    assert {split: len(part) for split, part in rows.items()} == {"train": 5, "validation": 2}
    expected = Image.open(io.BytesIO(picture(3)))
    assert rows["validation"][0]["image"].tobytes() == expected.tobytes()


def test_the_schema_declares_the_features_of_its_columns(exported: Path) -> None:
    schema = pq.read_schema(exported / FILES[0])
    declared = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert declared.pop("image") == {"_type": "Image"}
    assert {name: pa.type_for_alias(f["dtype"]) for name, f in declared.items()} == {
        field.name: field.type for field in schema if field.name != "image"
    }


def test_a_row_group_holds_a_bounded_number_of_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [raw_pair(n) for n in range(7)]
    size = max(len(pair.image) for pair in pairs)
    monkeypatch.setattr(row_groups, "ROW_GROUP_BYTES", 3 * size)
    export(write_corpus(tmp_path, {"train": [pairs]}), "parquet", tmp_path / "out")
    file = pq.ParquetFile(tmp_path / "out" / "data" / "train-00000-of-00001.parquet")
    groups = [file.read_row_group(n)["image"].to_pylist() for n in range(file.num_row_groups)]
    sizes = [sum(len(image["bytes"]) for image in group) for group in groups]
    assert sum(map(len, groups)) == 7
    assert len(groups) in (2, 3)
    assert max(sizes) <= 3 * size


def test_a_row_group_holds_a_bounded_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "ROW_GROUP_ROWS", 2)
    read: list[int] = []

    def rows() -> Iterator[tuple[dict[str, int], int]]:
        for number in range(5):
            read.append(number)
            yield {"number": number}, 1

    groups = row_groups.group_rows(rows())
    assert next(groups) == [{"number": 0}, {"number": 1}]
    assert read == [0, 1, 2]
    assert [len(group) for group in groups] == [2, 1]


def test_preference_pairs_have_prompt_pictures_and_scores(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    corpus = tmp_path / "corpus"
    shutil.copytree(finished, corpus)
    manifest = json.loads(write_manifest(corpus).read_text("utf-8"))
    out = tmp_path / "out"
    export(corpus, "parquet", out)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = list(datasets.load_dataset(str(out / "preferences"), split="train", streaming=True))
    assert len(rows) == manifest["counts"]["preferences"] > 0
    kept = pq.read_table(corpus / "preferences" / "00000.parquet").to_pylist()[0]
    shown = ("prompt", "reference", "chosen_key", "rejected_key", "margin")
    source = ("caption", "reference", "chosen", "rejected", "margin")
    assert [rows[0][name] for name in shown] == [kept[name] for name in source]
    chosen = curate.open_corpus(corpus).image(kept["chosen"])
    assert rows[0]["chosen"].tobytes() == Image.open(io.BytesIO(chosen)).tobytes()
    assert list(datasets.load_dataset(str(out), streaming=True)) == ["train", "validation"]
