"""The audit of files: every bit that changed, and every file that is missing or too many, is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from builders.damaged_corpus import (
    edit_table,
    find_differences,
    flip_bit,
    forge,
)
from builders.pictures_folder import tree

from stylear.curate.audit.auditor import audit
from stylear.curate.audit.manifest import corpus_files
from stylear.curate.corpus.storage import FileInfo


def test_an_untouched_corpus_passes(finished: Path) -> None:
    result = audit(finished)
    assert result.differences == ()
    assert result.passed
    assert result.require() is result
    assert (result.pairs, result.samples) == (17 + 24, 24)
    names = corpus_files(finished)
    assert result.files == len(names)
    assert result.bytes == sum((finished / name).stat().st_size for name in names)
    assert result.summary() == {
        "corpus": str(finished),
        "passed": True,
        "manifest_sha256": FileInfo.of(finished / "manifest.json").sha256,
        "files": result.files,
        "bytes": result.bytes,
        "pairs": 41,
        "samples": 24,
        "warnings": [],
        "not_examined": ["whether images can be decoded (--decode)"],
        "checks": result.check_rows(),
        "differences": [],
    }


def test_the_audit_changes_nothing(corpus: Path) -> None:
    (corpus / "stray.txt").write_text("x")
    before = tree(corpus)
    audit(corpus)
    assert tree(corpus) == before


def test_a_forged_but_untouched_corpus_passes(corpus: Path) -> None:
    """So what the forgery tests find is the damage, not the forging."""
    forge(corpus)
    assert audit(corpus).differences == ()


def test_a_report_and_unfinished_files_are_not_the_corpus(corpus: Path) -> None:
    (corpus / "report").mkdir(exist_ok=True)
    (corpus / "report" / "index.html").write_text("<html>")
    (corpus / "raw" / ".00009.tar.tmp").write_bytes(b"half")
    assert audit(corpus).passed


@pytest.mark.parametrize("place", [100, 700])  # a header, an image
@pytest.mark.parametrize("name", ["raw/00001", "stylized/00000", "train/00000", "val/00000"])
def test_a_flipped_bit_in_a_tar_is_found(corpus: Path, name: str, place: int) -> None:
    flip_bit(corpus / f"{name}.tar", place)
    differences = {(difference.kind, difference.file) for difference in audit(corpus).differences}
    assert differences >= {("changed", f"{name}.tar"), ("shard", f"{name}.tar")}


def test_a_flipped_bit_in_a_preference_tar_is_found(corpus: Path) -> None:
    flip_bit(corpus / "preferences" / "00000.tar", 700)
    assert ("changed", "preferences/00000.tar") in find_differences(corpus)


def test_a_truncated_tar_is_found(corpus: Path) -> None:
    path = corpus / "train" / "00001.tar"
    path.write_bytes(path.read_bytes()[:3000])
    assert find_differences(corpus) >= {
        ("changed", "train/00001.tar"),
        ("shard", "train/00001.tar"),
    }


@pytest.mark.parametrize(
    "name", ["train/00000.tar", "raw/00000.parquet", "mix.parquet", "train/wids.json"]
)
def test_a_deleted_file_is_found(corpus: Path, name: str) -> None:
    (corpus / name).unlink()
    assert find_differences(corpus) == {("missing", name)}


def test_an_extra_file_is_found(corpus: Path) -> None:
    (corpus / "notes.txt").write_text("mine")
    shutil.copy(corpus / "raw" / "00000.tar", corpus / "raw" / "backup.tar")
    assert find_differences(corpus) == {("extra", "notes.txt"), ("extra", "raw/backup.tar")}


def test_an_extra_shard_is_not_taken_for_training_data(corpus: Path) -> None:
    for ext in ("tar", "parquet"):
        shutil.copy(corpus / "val" / f"00000.{ext}", corpus / "train" / f"00009.{ext}")
    assert find_differences(corpus) >= {
        ("extra", "train/00009.tar"), ("extra", "train/00009.parquet"), ("index", "train/wids.json"),
    }  # fmt: skip


def test_edited_verdicts_are_found(corpus: Path) -> None:
    def keep_all(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row.update(kept=True, stage=None, reason=None)

    edit_table(corpus / "verdicts.parquet", keep_all)
    differences = {(difference.kind, difference.file) for difference in audit(corpus).differences}
    assert differences >= {("changed", "verdicts.parquet"), ("keys", "mix.parquet")}


@pytest.mark.parametrize("name", ["ledger/mix/all.json", "recipe.yaml"])
def test_a_damaged_record_is_listed_with_the_rest(corpus: Path, name: str) -> None:
    """It does not end the audit: the shard that is damaged too is named as well."""
    (corpus / name).write_text("{")
    flip_bit(corpus / "train" / "00000.tar", 700)
    kinds = {(difference.kind, difference.file) for difference in audit(corpus).differences}
    assert kinds >= {
        ("changed", name),
        ("changed", "train/00000.tar"),
        ("shard", "train/00000.tar"),
    }
    assert ("unreadable", name.partition("/")[0]) in kinds


def test_an_edited_recipe_is_found(corpus: Path) -> None:
    text = (corpus / "recipe.yaml").read_text()
    (corpus / "recipe.yaml").write_text(text.replace("name: small", "name: other"))
    assert find_differences(corpus) >= {
        ("changed", "recipe.yaml"),
        ("counts", "manifest.json name"),
        ("counts", "manifest.json recipe_sha256"),
    }
