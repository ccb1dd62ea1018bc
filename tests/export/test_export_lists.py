"""Lists: uids as DataComp's tools read them, hashes as sha256sum checks them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from builders.handmade_corpus import raw_pair, stylized_pair, write_corpus

from stylear.curate.export.exporter import export
from stylear.curate.export.sha256 import hash_line
from stylear.curate.fetch.subset import Subset
from stylear.errors import CorpusError

HIGH, LOW = "f" * 16 + "0" * 15 + "1", "0" * 16 + "f" * 16


def test_uids_are_sorted_pairs_of_halves_without_repeats(tmp_path: Path) -> None:
    pairs = [raw_pair(0, uid=HIGH), raw_pair(1, uid=LOW), raw_pair(2, uid=HIGH.upper())]
    others = [raw_pair(3, uid="no uid"), stylized_pair(0)]
    corpus = write_corpus(tmp_path, {"train": [pairs, others], "val": [[raw_pair(4, uid=LOW)]]})
    done = export(corpus, "datacomp", tmp_path / "out")
    uids = np.load(tmp_path / "out" / "train.npy", allow_pickle=False)
    assert uids.dtype == np.dtype("u8,u8")
    assert uids.tolist() == [(0, 2**64 - 1), (2**64 - 1, 1)]
    assert np.load(tmp_path / "out" / "validation.npy").tolist() == [(0, 2**64 - 1)]
    assert done.warnings == ("2 pairs have no DataComp uid and are not in the list",)


def test_the_list_chooses_the_same_rows_when_it_is_read_back(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, {"train": [[raw_pair(0, uid=HIGH)]]})
    export(corpus, "datacomp", tmp_path / "out")
    subset = Subset(tmp_path / "out" / "train.npy")
    assert (subset.has(HIGH), subset.has(LOW)) == (True, False)


def test_a_corpus_without_uids_is_an_error_with_a_way_out(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(CorpusError, match="expected pairs with a DataComp uid, found none"):
        export(corpus, "datacomp", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def sha256sum(folder: Path, hashes: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", str(hashes)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_sha256sum_checks_the_corpus_and_an_export_of_its_pictures(
    tmp_path: Path, corpus: Path
) -> None:
    export(corpus, "sha256", tmp_path / "hashes")
    export(corpus, "folders", tmp_path / "pictures")
    for folder, name in ((corpus, "corpus.sha256"), (tmp_path / "pictures", "images.sha256")):
        done = sha256sum(folder, tmp_path / "hashes" / name)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = (tmp_path / "hashes" / "images.sha256").read_text("utf-8").splitlines()
    assert len(lines) == 7
    [first, *_] = (tmp_path / "pictures").rglob("*.png")
    first.write_bytes(b"changed")
    done = sha256sum(tmp_path / "pictures", tmp_path / "hashes" / "images.sha256")
    assert done.returncode == 1
    assert done.stdout == f"{first.relative_to(tmp_path / 'pictures')}: FAILED\n"


def test_strange_names_are_escaped_as_sha256sum_does(tmp_path: Path) -> None:
    names = ["plain", "back\\slash", "line\nbreak", "two  spaces", "ä"]
    for name in names:
        (tmp_path / name).write_text(name)
    ours = "".join(
        hash_line(subprocess.check_output(["sha256sum"], input=n.encode()).split()[0].decode(), n)
        for n in names
    )
    theirs = subprocess.check_output(["sha256sum", *names], cwd=tmp_path, text=True)
    assert ours == theirs
