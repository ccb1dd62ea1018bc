"""The Croissant export is valid, and mlcroissant reads every record and every picture of it."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from builders.handmade_corpus import URLS, day, raw_pair, stylized_pair, write_corpus
from builders.tiny_corpus import picture
from PIL import Image

from stylear.curate.export.declared import Declared
from stylear.curate.export.exporter import export
from stylear.curate.export.record import FIELDS
from stylear.pair import digest

# mlcroissant parses JSON-LD with classes that rdflib deprecates, and leaves files open
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
DECLARED = Declared("CC-BY-4.0", "A Lab", "https://example.org/corpus", "2026-02-03")


@pytest.fixture(scope="module")
def exported(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("croissant") / "out"
    export(corpus, "croissant", out, DECLARED)
    return out


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """mlcroissant, unpacking into a folder of the test: its cache knows archives by their relative path."""
    import mlcroissant
    from etils import epath
    from mlcroissant._src.operation_graph.operations import extract

    monkeypatch.setattr(extract, "EXTRACT_PATH", epath.Path(tmp_path / "unpacked"))
    return mlcroissant


def described(folder: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads((folder / "croissant.json").read_text("utf-8"))
    return metadata


def test_mlcroissant_finds_no_error_in_the_description(exported: Path, reader: Any) -> None:
    metadata = reader.Dataset(str(exported / "croissant.json")).metadata
    assert metadata.ctx.issues.errors == set()
    assert {warning.split('"')[1] for warning in metadata.ctx.issues.warnings} == {
        "http://mlcommons.org/croissant/citeAs",
        "https://schema.org/version",
    }
    assert metadata.ctx.conforms_to.value == "http://mlcommons.org/croissant/1.1"
    assert metadata.license == ["CC-BY-4.0"]
    assert metadata.creators[0].name == "A Lab"
    assert metadata.date_published == datetime(2026, 2, 3, tzinfo=metadata.date_published.tzinfo)
    assert metadata.data_collection_type == ["Secondary Data Analysis", "Software Collection"]


def test_mlcroissant_reads_every_record_with_its_provenance(exported: Path, reader: Any) -> None:
    records = list(reader.Dataset(str(exported / "croissant.json")).records("pairs"))
    assert len(records) == 7
    assert [list(record) for record in records] == [[f"pairs/{name}" for name in FIELDS]] * 7
    by_key = {record["pairs/key"].decode(): record for record in records}
    pair_record = by_key[digest("stylized", 3, "ink--2")]
    assert {name: pair_record[f"pairs/{name}"] for name in FIELDS if name != "details"} == {
        "key": digest("stylized", 3, "ink--2").encode(),
        "split": b"validation",
        "caption": b"thing 3",
        "kind": b"stylized",
        "source": b"synthesizer:instantstyle",
        "content": pair_record["pairs/content"],
        "parent": digest("raw", 3).encode(),
        "style": b"ink",
        "reference": b"ink--2",
        "reference_sha256": b"ef" * 32,
        "prompt": b"thing 3",
        "seed": b"4611686018427387907",
        "synthesizer": b"instantstyle",
        "model": b"sdxl-base-1.0",
        "model_sha256": b"ab" * 32,
        "licence": None,
        "source_sha256": None,
        "image_sha256": hashlib.sha256(picture(103)).hexdigest().encode(),
        "width": 32,
        "height": 32,
    }


def test_columns_of_a_strangers_list_are_not_taken_for_a_synthesis(
    exported: Path, reader: Any
) -> None:
    records = reader.Dataset(str(exported / "croissant.json")).records("pairs")
    record = next(r for r in records if r["pairs/key"].decode() == digest("raw", 0))
    assert [record[f"pairs/{name}"] for name in ("prompt", "seed", "model")] == [None, None, None]
    assert record["pairs/licence"] == b"CC-BY-4.0"
    assert json.loads(record["pairs/details"])["prompt"] == "of a stranger"


def test_mlcroissant_reads_every_picture_by_its_key(exported: Path, reader: Any) -> None:
    records = list(reader.Dataset(str(exported / "croissant.json")).records("images"))
    pictures = {record["images/key"].decode(): record["images/image"] for record in records}
    assert len(pictures) == 7
    expected = Image.open(io.BytesIO(picture(2))).convert("RGB")
    assert pictures[digest("raw", 2)].tobytes() == expected.tobytes()


@pytest.mark.parametrize("encoding", ["JPEG", "WEBP"])
def test_pictures_of_other_encodings_are_read_too(
    tmp_path: Path, reader: Any, encoding: str
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 30), "red").save(buffer, encoding)
    pairs = [raw_pair(0, image=buffer.getvalue()), raw_pair(1)]
    export(write_corpus(tmp_path, {"train": [pairs]}), "croissant", tmp_path / "out")
    records = list(reader.Dataset(str(tmp_path / "out" / "croissant.json")).records("images"))
    sizes = {record["images/key"].decode(): record["images/image"].size for record in records}
    assert sizes == {digest("raw", 0): (20, 30), digest("raw", 1): (32, 32)}


def test_every_file_is_described_with_its_hash(exported: Path, corpus: Path) -> None:
    files = {n["@id"]: n for n in described(exported)["distribution"] if "contentUrl" in n}
    names = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
    assert set(files) == names - {"croissant.json"}
    for name, node in files.items():
        data = (exported / name).read_bytes()
        assert node["sha256"] == hashlib.sha256(data).hexdigest()
        assert node["contentSize"] == f"{len(data)} B"
    manifest = json.loads((corpus / "manifest.json").read_text())["files"]
    assert files["train/00000.tar"]["sha256"] == manifest["train/00000.tar"]["sha256"]


def test_a_damaged_file_is_found_by_mlcroissant(
    exported: Path, reader: Any, tmp_path: Path
) -> None:
    from mlcroissant._src.core.issues import GenerationError

    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    table = copy / "records.parquet"
    table.write_bytes(table.read_bytes()[:-9] + b"damaged!!")
    with pytest.raises(GenerationError, match=r"records\.parquet") as caught:
        list(reader.Dataset(str(copy / "croissant.json")).records("pairs"))
    assert "is not identical with the reference" in str(caught.value.__cause__)


def test_the_provenance_names_synthesisers_and_their_weights(exported: Path) -> None:
    [build, synthesis] = described(exported)["prov:wasGeneratedBy"]
    assert build["prov:used"].endswith(", seed 3")
    assert synthesis["prov:label"] == "synthesis of 3 pictures"
    weights = f"instantstyle with sdxl-base-1.0, weights with sha256 {'ab' * 32}"
    assert synthesis["prov:used"] == weights


def test_downloads_are_described_with_their_days_hosts_and_opt_outs(
    tmp_path: Path, reader: Any
) -> None:
    pairs = [raw_pair(n, f"https://{host}.example/p") for n, host in enumerate("aab")]
    corpus = write_corpus(
        tmp_path,
        {"train": [[*pairs, stylized_pair(0)]]},
        [URLS],
        {"fetch": {"opted-out": 4, "404": 2}},
        [day("2026-03-09"), day("2026-03-02")],
    )
    export(corpus, "croissant", tmp_path / "out")
    card = described(tmp_path / "out")
    assert card["rai:dataCollectionTimeFrame"] == ["2026-03-02", "2026-03-09"]
    assert card["rai:dataCollectionType"] == ["Software Collection", "Web Scraping"]
    assert "are left out: opted-out 4." in card["rai:dataCollection"]
    assert "2 hosts; the most frequent: a.example 66.7%, b.example 33.3%." in card["rai:dataBiases"]
    metadata = reader.Dataset(str(tmp_path / "out" / "croissant.json")).metadata
    assert metadata.ctx.issues.errors == set()
    first = metadata.data_collection_timeframe[0]
    assert first.replace(tzinfo=UTC) == datetime(2026, 3, 2, tzinfo=UTC)


def test_what_nobody_stated_is_not_invented_and_is_asked_for(tmp_path: Path, corpus: Path) -> None:
    done = export(corpus, "croissant", tmp_path / "out")
    assert done.warnings == (
        "Croissant asks for what no corpus knows; state it with --license, --creator, --url, --published",
    )
    stated = {"license", "creator", "url", "datePublished"}
    assert stated & set(described(tmp_path / "out")) == set()
