"""The shard format: reproducible bytes, atomic files, hostile tars."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from builders.pictures_folder import encoded, raw_pair
from builders.shard_pairs import KINDS, some_pairs
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stylear.curate.corpus import parquet, records, shards, storage
from stylear.curate.corpus.hashing import CHUNK_BYTES
from stylear.curate.corpus.parquet import read_rows
from stylear.curate.corpus.records import image_extension, image_size
from stylear.curate.corpus.shards import (
    iter_pairs,
    read_samples,
    read_shard,
    shard_paths,
    tar_samples,
    verify_shard,
    write_shard,
)
from stylear.curate.corpus.tars import BLOCK, encode_header, locate_samples, parse_sample, write_tar
from stylear.errors import CorpusError, StorageError
from stylear.pair import Origin, Pair


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    pairs = some_pairs()
    info = write_shard(tmp_path, 3, pairs)
    assert list(read_shard(tmp_path / "00003.tar")) == pairs
    assert (info.index, info.rows, info.kept, info.images) == (3, 7, 5, 5)
    assert info.dropped == {"timeout": 2}
    assert sorted(info.files) == ["00003.parquet", "00003.tar"]
    verify_shard(tmp_path / "00003.tar", info)


@hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    caption=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    details=st.dictionaries(
        st.text("abc_", min_size=1, max_size=5),
        st.none()
        | st.booleans()
        | st.integers(-(2**60), 2**60)
        | st.text(max_size=9)
        | st.floats(allow_nan=False, allow_infinity=False),
        max_size=4,
    ),
)
def test_any_caption_and_details_survive(
    tmp_path: Path, caption: str, details: dict[str, Any]
) -> None:
    origin = Origin("raw", "test", "content", details=details)
    pair = Pair("a1", caption, encoded(1), origin)
    write_shard(tmp_path, 0, [pair])
    assert list(read_shard(tmp_path / "00000.tar")) == [pair]


def test_the_same_pairs_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "a", 0, some_pairs())
    second = write_shard(tmp_path / "b", 0, iter(some_pairs()))
    assert first == second
    for name in first.files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_infos_are_the_hashes_of_the_files(tmp_path: Path) -> None:
    info = write_shard(tmp_path, 0, some_pairs())
    for name, file in info.files.items():
        assert storage.FileInfo.of(tmp_path / name) == file


def test_a_tar_is_plain_ustar_with_pinned_headers_and_rows_in_order(tmp_path: Path) -> None:
    pairs = some_pairs()
    write_shard(tmp_path, 0, pairs)
    with tarfile.open(tmp_path / "00000.tar") as tar:
        members = tar.getmembers()
        record = json.loads(tar.extractfile(members[2]).read())  # type: ignore[union-attr]
    with_image = [p for p in pairs if p.image]
    assert [m.name.split(".")[0] for m in members] == [p.key for p in with_image for _ in range(3)]
    assert [m.name.split(".")[1] for m in members[:3]] == ["png", "txt", "json"]
    assert {(m.mtime, m.uid, m.gid, m.mode, m.type) for m in members} == {
        (0, 0, 0, 0o644, tarfile.REGTYPE)
    }
    assert record["caption"] == pairs[0].caption
    assert record["details"] == dict(pairs[0].origin.details)
    assert (tmp_path / "00000.tar").stat().st_size % tarfile.RECORDSIZE == 0


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    name=st.text(st.sampled_from("abcXYZ019_-."), min_size=1, max_size=100),
    size=st.integers(0, 8**11 - 1),
)
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o644, 0
    assert encode_header(name.encode(), size) == member.tobuf(tarfile.USTAR_FORMAT)


def test_samples_are_where_tarfile_finds_them_and_other_files_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, some_pairs())
    path = tmp_path / "00000.tar"
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        members = [(m.name, m.offset, m.offset_data, m.size) for m in tar]
    images, records = members[::3], members[2::3]
    starts = [offset for _, offset, _, _ in images]
    ends = [*starts[1:], records[-1][2] + records[-1][3] + -records[-1][3] % BLOCK]
    known = [
        (name.partition(".")[0].encode(), end - place - size - -size % BLOCK)
        for (name, _, place, size), end in zip(images, ends, strict=True)
    ]
    locations = list(locate_samples(path, io.BytesIO(data), known))
    assert locations == [(start, end - start) for start, end in zip(starts, ends, strict=True)]
    parts = [parse_sample(data[start:end]) for start, end in zip(starts, ends, strict=True)]
    assert parts == [
        (data[a : a + m], data[b : b + n])
        for (*_, a, m), (*_, b, n) in zip(images, records, strict=True)
    ]
    for damaged in (data[:700], data[:1024], data[: ends[-1]], b"", b"x" * 2048):
        with pytest.raises(CorpusError, match=r"00000\.tar: expected the samples of its table"):
            list(locate_samples(path, io.BytesIO(damaged), known))
    for others in (known[1:], known[:-1], [(b"nobody", known[0][1])], [(known[0][0], 0)]):
        with pytest.raises(CorpusError, match=r"00000\.tar: expected the samples of its table"):
            list(locate_samples(path, io.BytesIO(data), others))
    for start, end in ((starts[0], ends[0] - BLOCK), (starts[0] + BLOCK, ends[0])):
        with pytest.raises(ValueError, match=r"an incomplete sample|invalid literal"):
            parse_sample(data[start:end])


def test_captions_that_look_like_the_record_survive(tmp_path: Path) -> None:
    pair = dataclasses.replace(raw_pair(1), caption='x,"details":0,\\"details":0,\n\0')
    write_shard(tmp_path, 0, [pair])
    assert list(read_shard(tmp_path / "00000.tar")) == [pair]
    [(_, files)] = tar_samples(tmp_path / "00000.tar")
    record = json.loads(files["json"])
    assert record["caption"] == pair.caption
    assert record["details"] == dict(pair.origin.details)


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                name: st.booleans()
                if kind == "bool_"
                else st.none() | st.integers(0, 2**31 - 1)
                if kind == "int32"
                else st.none() | st.text()
                for name, kind in records.TYPES.items()
            }
            | {"details": st.dictionaries(st.text(), st.none() | st.text() | st.integers())}
        ),
        max_size=4,
    )
)
def test_the_records_of_a_table_are_the_rows_as_json(rows: list[dict[str, Any]]) -> None:
    rows = [{name: row[name] for name in records.TYPES} for row in rows]
    written = [records.canonical_json(row) for row in rows]
    details = [records.extract_details(record) for record in written]
    assert details == [records.canonical_json(row["details"]) for row in rows]
    columns = {name: [row[name] for row in rows] for name in records.TYPES} | {"details": details}
    assert records.encode_records(parquet.rows_to_table(columns)).to_pylist() == written


def test_a_shard_longer_than_what_the_threads_are_given_at_once_is_hashed_whole(
    tmp_path: Path,
) -> None:
    noise = [
        dataclasses.replace(raw_pair(i), image=encoded(i) + bytes([i]) * 700_000) for i in range(9)
    ]
    info = write_shard(tmp_path, 0, noise)
    assert info.files["00000.tar"].bytes > 6 * CHUNK_BYTES
    for name, file in info.files.items():
        assert storage.FileInfo.of(tmp_path / name) == file
    tar = write_tar(tmp_path / "other.tar", [(f"{pair.key}.png", pair.image) for pair in noise])
    data = (tmp_path / "other.tar").read_bytes()
    assert tar.md5 == hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert tar.sha256 == hashlib.sha256(data).hexdigest()
    assert list(read_shard(tmp_path / "00000.tar")) == noise


def test_a_shard_of_other_bytes_than_expected_replaces_nothing(tmp_path: Path) -> None:
    info = write_shard(tmp_path, 0, some_pairs())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    hashes = {name: file.sha256 for name, file in info.files.items()}
    with pytest.raises(storage.HashMismatch, match=r"00000\.tar"):
        write_shard(tmp_path, 0, some_pairs(6), expected=hashes)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert write_shard(tmp_path, 0, some_pairs(), expected=hashes) == info


def test_the_table_has_every_pair_and_the_tar_those_with_images(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, some_pairs())
    rows = read_rows(tmp_path / "00000.parquet")
    assert [row["kept"] for row in rows] == [True, True, False, True, True, False, True]
    assert rows[2]["reason"] == "timeout"
    assert rows[2]["image_sha256"] is None
    assert (rows[0]["width"], rows[0]["height"], rows[1]["ext"]) == (16, 16, "jpg")
    assert len(list(tar_samples(tmp_path / "00000.tar"))) == 5


def test_webdataset_reads_the_shards_of_a_directory_in_order(tmp_path: Path) -> None:
    pairs = some_pairs(8)
    write_shard(tmp_path, 0, pairs[:4])
    write_shard(tmp_path, 1, pairs[4:])
    samples = list(read_samples(tmp_path))
    with_image = [pair for pair in pairs if pair.image]
    assert [s["key"] for s in samples] == [p.key for p in with_image]
    assert [s["image"] for s in samples] == [p.image for p in with_image]
    assert samples[0]["txt"] == pairs[0].caption
    assert samples[0]["json"]["content"] == pairs[0].origin.content
    assert list(iter_pairs(tmp_path)) == pairs
    with pytest.raises(CorpusError, match="expected shards"):
        list(read_samples(tmp_path / "nothing"))


def test_only_numbered_tars_are_shards(tmp_path: Path) -> None:
    write_shard(tmp_path, 2, some_pairs(1))
    write_shard(tmp_path, 0, some_pairs(1))
    (tmp_path / "notes.tar").write_bytes(b"")
    (tmp_path / ".00001.tar.tmp").write_bytes(b"half")
    assert [path.name for path in shard_paths(tmp_path)] == ["00000.tar", "00002.tar"]


def test_a_key_twice_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"expected unique keys, found .* twice"):
        write_shard(tmp_path, 0, [raw_pair(1), raw_pair(1)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["a.b", "a/b", "", "../a", "ä"])
def test_a_key_that_cannot_name_a_member_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(CorpusError, match="expected letters"):
        write_shard(tmp_path, 0, [dataclasses.replace(raw_pair(1), key=key)])


def test_bytes_that_are_no_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="expected a png, jpg or webp"):
        write_shard(tmp_path, 0, [dataclasses.replace(raw_pair(1), image=b"GIF89a...")])


@pytest.mark.parametrize("kind", KINDS)
def test_image_type_and_size_come_from_the_header(kind: str) -> None:
    data = encoded(1, size=24, kind=kind)
    assert image_extension(data) == {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}[kind]
    assert image_size(data) == (24, 24)


def test_a_full_disk_is_a_storage_error_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_shard(tmp_path, 0, some_pairs())
    before = (tmp_path / "00000.tar").read_bytes()
    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(StorageError, match=r"00000\.tar: cannot write: No space left") as caught:
        write_shard(tmp_path, 0, some_pairs(2))
    assert "free some space" in (caught.value.hint or "")
    assert (tmp_path / "00000.tar").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000.parquet", "00000.tar"]


def test_other_members_can_be_written_as_reproducibly(tmp_path: Path) -> None:
    members = [("a.chosen.png", b"1"), ("a.rejected.png", b"22"), ("a.json", b"{}")]
    first = write_tar(tmp_path / "1.tar", members)
    second = write_tar(tmp_path / "2.tar", iter(members))
    assert first.sha256 == second.sha256
    assert list(tar_samples(tmp_path / "1.tar")) == [
        ("a", {"chosen.png": b"1", "rejected.png": b"22", "json": b"{}"})
    ]


def test_unfinished_files_are_removed_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / ".00000.tar.tmp").write_bytes(b"half")
    (tmp_path / "raw" / "00000.tar").write_bytes(b"whole")
    assert storage.remove_unfinished(tmp_path) == 1
    assert [p.name for p in (tmp_path / "raw").iterdir()] == ["00000.tar"]


def test_shards_version_is_pinned_to_its_bytes(tmp_path: Path) -> None:
    """Other bytes for the same pairs need another VERSION (the tar; the table's depend on pyarrow)."""
    pair = Pair(
        "k1",
        "a cat",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 8 + b"\0\0\0\2\0\0\0\3",
        Origin("raw", "s", "c"),
    )
    info = write_shard(tmp_path, 0, [pair])
    assert shards.VERSION == 1
    assert info.files["00000.tar"].sha256 == (
        "e041816733bac2fadd00df7388293a520bcdb1f9599ea0426ef5df4eb0515adb"
    )
