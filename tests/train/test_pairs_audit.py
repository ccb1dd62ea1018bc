"""The audit of on-policy pairs finds what differs from the manifest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from builders.tiny_corpus import write_tiny_corpus
from builders.tiny_model import write_tiny_model
from typer.testing import CliRunner

from stylear.curate.corpus.shards import tar_samples
from stylear.curate.corpus.tars import write_tar
from stylear.errors import AuditFailed
from stylear.train import pairs, pairs_audit
from stylear.train.cli import app
from stylear.train.settings import PairsSettings


@pytest.fixture(scope="module")
def finished_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audited")
    write_tiny_corpus(root / "corpus")
    write_tiny_model(root / "model")
    values = {"corpus": [root / "corpus"], "model": str(root / "model"), "out": root / "pairs"}
    return pairs.run(
        PairsSettings.model_validate(values | {"prompts": 4, "samples": 2, "margin": 0.0})
    )


@pytest.fixture
def folder(finished_pairs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(
        finished_pairs, tmp_path / "pairs", ignore=shutil.ignore_patterns("encoded")
    )


def test_finished_pairs_pass(finished_pairs: Path) -> None:
    corpus = str(finished_pairs.parent / "corpus")
    result = CliRunner().invoke(app, ["audit", str(finished_pairs), "--corpus", corpus, "--json"])
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["files"] == 1
    assert report["pairs"] == json.loads((finished_pairs / "pairs.json").read_text())["pairs"] > 0


def test_a_changed_byte_is_found(folder: Path) -> None:
    path = folder / "preferences" / "00000.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    with pytest.raises(AuditFailed, match=r"preferences/00000\.tar: expected sha256 "):
        pairs_audit.audit(folder)


def test_swapped_images_and_rows_are_found_even_with_a_new_hash(folder: Path) -> None:
    path = folder / "preferences" / "00000.tar"
    samples = [(key, dict(files)) for key, files in tar_samples(path)]
    row = json.loads(samples[0][1]["json"]) | {"chosen_score": 9.0}
    samples[0][1]["json"] = json.dumps(row).encode()
    tar = write_tar(path, [(f"{k}.{name}", data) for k, f in samples for name, data in f.items()])
    manifest = json.loads((folder / "pairs.json").read_text())
    manifest["files"]["preferences/00000.tar"] = {"bytes": tar.bytes, "sha256": tar.sha256}
    (folder / "pairs.json").write_text(json.dumps(manifest))
    with pytest.raises(AuditFailed, match="expected the rows of its note, found others"):
        pairs_audit.audit(folder)


def test_margins_counts_and_inputs_are_compared(folder: Path) -> None:
    manifest = json.loads((folder / "pairs.json").read_text())
    manifest["settings"]["margin"] = 2.0
    manifest["pairs"] += 1
    (folder / "pairs.json").write_text(json.dumps(manifest))
    with pytest.raises(AuditFailed, match="inputs with key") as raised:
        pairs_audit.audit(folder)
    assert "a margin of 2.0 or more" in str(raised.value)


def test_a_tar_that_the_manifest_does_not_know_is_found(folder: Path) -> None:
    shutil.copy(folder / "preferences" / "00000.tar", folder / "preferences" / "00007.tar")
    with pytest.raises(AuditFailed, match=r"00007\.tar: expected no such file in the manifest"):
        pairs_audit.audit(folder)


def test_another_corpus_is_found(finished_pairs: Path, tmp_path: Path) -> None:
    other = shutil.copytree(finished_pairs.parent / "corpus", tmp_path / "other")
    (other / "manifest.json").write_text("{}")
    with pytest.raises(AuditFailed, match="expected a corpus with sha256"):
        pairs_audit.audit(finished_pairs, (str(other),))
