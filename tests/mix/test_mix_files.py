"""The files that the mix writes, and what it refuses to write."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from builders.mixed_corpus import (
    mix_again,
    mix_recipe,
    mixed_files,
    stored_pair,
)
from builders.pictures_folder import encoded

from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.parquet import read_rows, read_table, write_table
from stylear.curate.corpus.shards import iter_pairs, write_shard
from stylear.curate.corpus.storage import FileInfo
from stylear.curate.corpus.tars import BLOCK
from stylear.curate.mix.mixing import mix_corpus
from stylear.errors import CorpusError
from stylear.pair import digest


def test_a_mixed_corpus_has_the_counts_asked_for(written: Path) -> None:
    rows = {split: list(iter_pairs(written / split)) for split in ("train", "val")}
    kinds = {s: Counter(pair.origin.kind for pair in pairs) for s, pairs in rows.items()}
    assert kinds == {"train": {"raw": 12, "stylized": 4}, "val": {"raw": 6, "stylized": 2}}
    names = {split: sorted(p.name for p in (written / split).iterdir()) for split in rows}
    assert names == {
        "train": [*(f"0000{n}.{ext}" for n in range(3) for ext in ("parquet", "tar")), "wids.json"],
        "val": [*(f"0000{n}.{ext}" for n in range(2) for ext in ("parquet", "tar")), "wids.json"],
    }
    sizes = [len(read_rows(written / "train" / f"0000{n}.parquet")) for n in range(3)]
    assert sizes == [7, 7, 2]


def test_every_kept_pair_has_a_row_with_its_split_or_reason(written: Path) -> None:
    rows = read_table(written / "mix.parquet").to_pylist()
    kept = read_table(written / "verdicts.parquet", ["key"])["key"].to_pylist()
    assert [row["key"] for row in rows] == kept
    assert len(kept) == 46
    for split in ("train", "val"):
        keys = {pair.key for pair in iter_pairs(written / split)}
        assert keys == {row["key"] for row in rows if row["split"] == split}
    out = [row for row in rows if row["split"] is None]
    assert Counter(row["reason"] for row in out) == {"ratio": 21, "split": 1}
    assert {(row["stage"], row["kept"]) for row in out} == {("mix", False)}


def test_a_duplicate_across_contents_that_would_cross_is_dropped_with_reason_split(
    written: Path,
) -> None:
    [row] = [r for r in read_table(written / "mix.parquet").to_pylist() if r["reason"] == "split"]
    assert row["key"] == digest("mix", 39)
    pictures = {
        split: {
            row["image_sha256"] for n in written.glob(f"{split}/*.parquet") for row in read_rows(n)
        }
        for split in ("train", "val")
    }
    assert not pictures["train"] & pictures["val"]
    assert len(pictures["val"]) == 8


def test_no_content_and_no_reference_crosses(written: Path) -> None:
    seen = {
        split: [(p.origin.content, p.origin.reference) for p in iter_pairs(written / split)]
        for split in ("train", "val")
    }
    for place_ in (0, 1):
        train, val = ({row[place_] for row in rows} - {None} for rows in seen.values())
        assert train
        assert val
        assert not train & val


def test_a_mixed_pair_is_the_pair_it_was(written: Path) -> None:
    before = {p.key: p for kind in ("raw", "stylized") for p in iter_pairs(written / kind)}
    mixed = [p for split in ("train", "val") for p in iter_pairs(written / split)]
    assert len(mixed) == 24
    assert all(pair == before[pair.key] for pair in mixed)


def test_the_mix_returns_its_files_with_their_hashes(written: Path, tmp_path: Path) -> None:
    for name in ("raw", "stylized", "scores", "verdicts.parquet"):
        (tmp_path / name).symlink_to(written / name)
    written_files = mix_corpus(tmp_path, mix_recipe())
    files = [path for part in ("train", "val") for path in (tmp_path / part).iterdir()]
    assert sorted(written_files) == sorted([*files, tmp_path / "mix.parquet"])
    assert {path: info.sha256 for path, info in written_files.items()} == {
        path: FileInfo.of(path).sha256 for path in written_files
    }


def test_verdicts_of_other_pairs_are_refused(written: Path, tmp_path: Path) -> None:
    for name in ("raw", "stylized", "scores"):
        (tmp_path / name).symlink_to(written / name)
    table = read_table(written / "verdicts.parquet")
    write_table(tmp_path / "verdicts.parquet", table.slice(1))
    with pytest.raises(
        CorpusError, match="expected verdicts of the corpus's pairs, found those of other pairs"
    ):
        mix_corpus(tmp_path, mix_recipe())


def test_an_image_that_changed_on_the_disk_is_not_mixed(written: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "raw", 0, [stored_pair(1, "a"), stored_pair(2, "b")])
    table = (tmp_path / "raw" / "00000.parquet").read_bytes()
    write_shard(tmp_path / "raw", 0, [stored_pair(1, "a", image=5), stored_pair(2, "b")])
    (tmp_path / "raw" / "00000.parquet").write_bytes(table)
    pictures = PairReader(tmp_path)
    assert pictures.pair(digest("mix", 2)).image == encoded(2)
    with pytest.raises(CorpusError, match=f"the image of {digest('mix', 1)} differs from the hash"):
        pictures.pair(digest("mix", 1))


def test_a_caption_that_changed_beside_its_image_is_not_mixed(
    written: Path, tmp_path: Path
) -> None:
    """The caption is written from the row, which is checked, and not from the txt member."""
    shutil.copytree(written / "raw", tmp_path / "raw")
    path = tmp_path / "raw" / "00000.tar"
    data = path.read_bytes()
    at = data.index(f"{digest('mix', 2)}.txt".encode()) + BLOCK
    path.write_bytes(data[:at] + b"#" + data[at + 1 :])
    assert mix_again(written, tmp_path, mix_recipe()) == mixed_files(written)
    assert digest("mix", 2) in {pair.key for pair in iter_pairs(tmp_path / "train")}


def test_a_pair_that_is_kept_without_an_image_is_not_mixed(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "raw",
        0,
        [stored_pair(1, "a"), dataclasses.replace(stored_pair(2, "b"), image=b"")],
    )
    pictures = PairReader(tmp_path)
    assert len(pictures.samples(np.array([digest("mix", 1).encode()]))) == 1
    for number, message in ((2, "expected an image of"), (3, "expected a pair")):
        with pytest.raises(CorpusError, match=f"{message} {digest('mix', number)}, found none"):
            pictures.samples(np.array([digest("mix", number).encode()]))
