"""Claims about damaged and hostile shards: what is wrong is found and named."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from builders.pictures_folder import raw_pair
from builders.shard_pairs import some_pairs

from stylear.curate.corpus.shards import (
    read_shard,
    tar_samples,
    verify_shard,
    write_shard,
)
from stylear.errors import CorpusError, SourceError


def test_a_changed_byte_of_an_image_is_found(tmp_path: Path) -> None:
    info = write_shard(tmp_path, 0, some_pairs())
    path = tmp_path / "00000.tar"
    data = bytearray(path.read_bytes())
    data[512 + 100] ^= 1  # inside the first image
    path.write_bytes(data)
    with pytest.raises(CorpusError, match="differs from the hash"):
        list(read_shard(path))
    with pytest.raises(CorpusError, match=r"00000\.tar: expected"):
        verify_shard(path, info)


@pytest.mark.parametrize("left", [700, 1536, 512 * 9 + 100])
def test_a_cut_off_tar_is_found(tmp_path: Path, left: int) -> None:
    write_shard(tmp_path, 0, some_pairs())
    path = tmp_path / "00000.tar"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CorpusError, match=r"00000\.tar"):
        list(read_shard(path))


def test_a_tar_of_other_pairs_than_its_table_is_found(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, some_pairs(3))
    write_shard(tmp_path / "other", 0, [raw_pair(9)])
    (tmp_path / "other" / "00000.tar").replace(tmp_path / "00000.tar")
    with pytest.raises(CorpusError, match="expected the image of"):
        list(read_shard(tmp_path / "00000.tar"))


def test_a_sample_without_a_row_is_found(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, [raw_pair(1), raw_pair(2)])
    write_shard(tmp_path / "other", 0, [raw_pair(1)])
    (tmp_path / "other" / "00000.parquet").replace(tmp_path / "00000.parquet")
    with pytest.raises(CorpusError, match="has no row"):
        list(read_shard(tmp_path / "00000.tar"))


def test_a_table_that_is_missing_damaged_or_of_another_kind_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, some_pairs())
    path = tmp_path / "00000.parquet"
    table = pq.read_table(path).drop_columns(["content"])
    path.write_bytes(b"not parquet at all")
    with pytest.raises(CorpusError, match=r"00000\.parquet: expected a readable parquet"):
        list(read_shard(tmp_path / "00000.tar"))
    pq.write_table(table, path)
    with pytest.raises(CorpusError, match="expected a column 'content'"):
        list(read_shard(tmp_path / "00000.tar"))
    path.unlink()
    with pytest.raises(CorpusError, match=r"00000\.parquet"):
        list(read_shard(tmp_path / "00000.tar"))
    with pytest.raises(SourceError, match="found nothing"):
        list(tar_samples(tmp_path / "none.tar"))


def hostile(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(
    name: str, kind: bytes = tarfile.REGTYPE, size: int = 1, target: str = ""
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.size = size if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../a.png"),
        member("/etc/a.png"),
        member("sub/a.png"),
        member("a\\b.png"),
        member(".png"),
        member("a"),
        member("a."),
        member("a.png", tarfile.SYMTYPE, target="/etc/passwd"),
        member("a.png", tarfile.LNKTYPE, target="b.png"),
        member("a.png", tarfile.DIRTYPE),
        member("a.png", tarfile.CHRTYPE),
        member("a.png", tarfile.FIFOTYPE),
    ],
    ids=lambda m: f"{m.name}-{m.type.decode('latin1')}",
)
def test_hostile_members_are_refused_by_name(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    path = hostile(tmp_path / "a.tar", member("good.png"), bad)
    with pytest.raises(CorpusError, match="expected a plain file"):
        list(tar_samples(path))


def test_members_repeated_separated_or_too_large_are_refused(tmp_path: Path) -> None:
    twice = hostile(tmp_path / "a.tar", member("a.png"), member("a.png"))
    with pytest.raises(CorpusError, match="comes twice"):
        list(tar_samples(twice))
    apart = hostile(tmp_path / "b.tar", member("a.png"), member("b.png"), member("a.txt"))
    with pytest.raises(CorpusError, match="not together"):
        list(tar_samples(apart))
    large = hostile(tmp_path / "c.tar", member("a.png", size=2000))
    with pytest.raises(CorpusError, match="at most 1,000"):
        list(tar_samples(large, max_bytes=1000))
