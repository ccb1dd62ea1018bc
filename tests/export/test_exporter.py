"""Exports as a whole: the same bytes, nothing unchecked, nothing where it does not belong."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from builders.handmade_corpus import raw_pair, small_corpus, write_corpus
from builders.pictures_folder import tree
from typer.testing import CliRunner

import stylear.curate.cli
from stylear.curate.corpus.object_store import corpus_path
from stylear.curate.corpus.storage import list_files, write_bytes
from stylear.curate.export.exporter import export
from stylear.curate.export.registry import FORMATS
from stylear.errors import CorpusError, StorageError, UsageError

WITHOUT_UIDS = [name for name in FORMATS if name != "datacomp"]


def run(*words: str) -> Any:
    return CliRunner().invoke(stylear.curate.cli.app, ["export", *words])


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    pairs = [[raw_pair(0, uid="0" * 31 + "1"), raw_pair(1, uid="0" * 31 + "2")]]
    corpus = write_corpus(tmp_path, {"train": pairs})
    moved = tmp_path / "elsewhere" / "corpus"
    shutil.copytree(corpus, moved)
    for path, out in ((corpus, "a"), (moved, "b")):
        export(path, name, tmp_path / out)
    first, second = tree(tmp_path / "a"), tree(tmp_path / "b")
    assert len(first) > 0
    assert first == second


@pytest.mark.parametrize("name", WITHOUT_UIDS)
def test_a_corpus_in_an_object_store_gives_the_same_bytes(
    tmp_path: Path, corpus: Path, name: str
) -> None:
    store = corpus_path(f"memory://export-{name}/corpus")
    for path in list_files(corpus):
        write_bytes(store / path.relative_to(corpus).as_posix(), path.read_bytes())
    export(corpus, name, tmp_path / "of-disk")
    export(store, name, tmp_path / "of-store")
    assert tree(tmp_path / "of-disk") == tree(tmp_path / "of-store")


@pytest.mark.parametrize("name", WITHOUT_UIDS)
def test_every_format_has_every_pair(tmp_path: Path, corpus: Path, name: str) -> None:
    before = tree(corpus)
    done = export(corpus, name, tmp_path / "out")
    assert done.pairs == {"train": 5, "val": 2}
    assert done.files == len(tree(tmp_path / "out"))
    assert done.bytes == sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.*"))
    assert tree(corpus) == before


@pytest.mark.parametrize("name", FORMATS)
def test_a_dry_run_gives_a_size_and_writes_nothing(tmp_path: Path, corpus: Path, name: str) -> None:
    out = tmp_path / "out"
    done = run(str(corpus), "--to", name, "--out", str(out), "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert (printed["dry_run"], printed["files"], printed["bytes"] > 0) == (True, None, True)
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_what_was_written_as_json(tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "out"
    done = run(str(corpus), "--to", "sha256", "--out", str(out), "--json")
    assert done.exit_code == 0, done.output
    manifest = hashlib.sha256((corpus / "manifest.json").read_bytes()).hexdigest()
    assert json.loads(done.stdout) == {
        "corpus": str(corpus),
        "manifest_sha256": manifest,
        "format": "sha256",
        "out": str(out),
        "pairs": {"train": 5, "val": 2},
        "files": 2,
        "bytes": sum(path.stat().st_size for path in out.iterdir()),
        "dry_run": False,
        "warnings": [],
    }


def test_the_help_and_the_page_name_every_format() -> None:
    words = " ".join(run("--help").output.split())
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
    assert [name for name in FORMATS if name not in words or f"| `{name}` |" not in page] == []


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(UsageError, match="expected one of croissant, huggingface, parquet"):
        export(corpus, "zip", tmp_path / "out")


def test_a_url_as_out_is_refused(corpus: Path) -> None:
    done = run(str(corpus), "--to", "sha256", "--out", "s3://bucket/export")
    assert isinstance(done.exception, UsageError)
    assert "expected a local folder" in str(done.exception)


@pytest.mark.parametrize("inside", ["export", "train/../export", ""])
def test_a_place_inside_the_corpus_is_refused(tmp_path: Path, inside: str) -> None:
    corpus = small_corpus(tmp_path)
    with pytest.raises(UsageError, match="expected a folder outside the corpus"):
        export(corpus, "sha256", corpus / inside)


def test_an_unfinished_corpus_is_refused(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path)
    (corpus / "manifest.json").unlink()
    with pytest.raises(CorpusError, match="expected a finished corpus"):
        export(corpus, "parquet", tmp_path / "out")


@pytest.mark.parametrize("name", WITHOUT_UIDS)
def test_a_table_that_is_not_the_manifests_stops_the_export(tmp_path: Path, name: str) -> None:
    corpus = small_corpus(tmp_path)
    shutil.copy(corpus / "val" / "00000.parquet", corpus / "train" / "00001.parquet")
    with pytest.raises(CorpusError, match=r"train/00001\.parquet: expected sha256 \w{12} as in"):
        export(corpus, name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", WITHOUT_UIDS)
def test_a_shard_that_is_gone_stops_the_export(tmp_path: Path, name: str) -> None:
    corpus = small_corpus(tmp_path)
    for path in (corpus / "train").glob("00001.*"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"train/00001\.\w+: expected a file"):
        export(corpus, name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["croissant", "huggingface", "parquet", "folders", "sha256"])
def test_a_picture_of_another_hash_stops_the_export(tmp_path: Path, name: str) -> None:
    corpus = small_corpus(tmp_path)
    tar = corpus / "train" / "00000.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(bytes(data))
    with pytest.raises(CorpusError, match=r"00000\.tar: "):
        export(corpus, name, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_disk_without_room_is_found_before_anything_is_written(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="found 10 free"):
        export(corpus, "parquet", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--license", "do what you want"], "an SPDX identifier"),
        (["--license", "javascript:alert(1)"], "an SPDX identifier"),
        (["--url", "file:///etc/passwd"], "a URL that starts with https"),
        (["--creator", "two\nlines"], "one line of at most 200 characters"),
        (["--published", "31.1.2026"], "a date such as 2026-01-31"),
        (["--published", "2026-02-30"], "a date such as 2026-01-31"),
    ],
)
def test_statements_that_no_format_can_hold_are_refused(
    tmp_path: Path, corpus: Path, words: list[str], expected: str
) -> None:
    done = run(str(corpus), "--to", "croissant", "--out", str(tmp_path / "out"), *words)
    assert isinstance(done.exception, UsageError)
    assert expected in str(done.exception)
