"""Claims about tars: what lies in them, ours and img2dataset's, hostile ones, damaged and odd files."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.odd_tars import (
    Member,
    hard_link,
    outcomes,
    pack,
    picture,
    read_tars,
    write_tar,
)

from stylear.errors import SourceError


def test_tars_of_img2dataset_are_read_with_their_failures(tmp_path: Path) -> None:
    record = {"url": "http://a/b.jpg", "caption": "a boat", "key": "000000001", "status": "success"}
    members = [
        ("000000001.jpg", picture()),
        ("000000001.txt", b"a boat"),
        ("000000001.json", json.dumps(record).encode()),
    ]
    write_tar(tmp_path / "00000.tar", members)
    failed = {**record, "key": "000000000", "status": "failed_to_download", "caption": "gone"}
    table = [
        {**failed, "error_message": "HTTP Error 404: Not Found"},
        {**record, "error_message": None},
    ]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "00000.parquet")
    pairs = read_tars(tmp_path, "*.tar")
    assert [(p.caption, p.verdict.reason) for p in pairs] == [
        ("a boat", None),
        ("gone", "http-404"),
    ]
    assert pairs[0].origin.source == "shard:00000.tar#000000001"
    assert pairs[0].origin.details["url"] == "http://a/b.jpg"


def test_shards_of_ours_keep_their_content_and_their_verdicts(tmp_path: Path) -> None:
    records = [
        {"key": "k1", "caption": "a boat", "content": "c1", "source_sha256": None, "kept": True},
        {"key": "k2", "caption": "a ship", "content": "c1", "source_sha256": None, "kept": False},
    ]
    records[0]["details"] = {"licence": "cc0", "source_width": 7}
    members: list[Member] = []
    for record in records:
        members.append((f"{record['key']}.png", picture()))
        members.append((f"{record['key']}.txt", str(record["caption"]).encode()))
        members.append((f"{record['key']}.json", json.dumps(record).encode()))
    write_tar(tmp_path / "00000.tar", members)
    pairs = read_tars(tmp_path, "00000.tar")
    assert [pair.verdict.reason for pair in pairs] == [None, "dropped-before"]
    assert {pair.origin.content for pair in pairs} == {"c1"}
    assert pairs[0].origin.details["licence"] == "cc0"
    assert pairs[0].origin.details["source_width"] == 24


def test_hostile_members_are_dropped_and_counted(tmp_path: Path) -> None:
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device = tarfile.TarInfo("device.png")
    device.type = tarfile.CHRTYPE
    write_tar(
        tmp_path / "x.tar",
        [
            ("../../escape.png", picture()),
            ("/absolute.png", picture()),
            ("bad\nname.png", picture()),
            link,
            device,
            ("good.png", picture(1)),
            ("good.txt", b"a good one"),
            ("twice.png", picture(2)),
            ("twice.png", picture(3)),
            ("twice.txt", b"twice"),
            ("alone.txt", b"no picture"),
            ("silent.png", picture(4)),
            ("huge.png", bytes(5000)),
            ("sub/folder.png", picture(5)),
            ("sub/folder.txt", b"names may have folders"),
            ("__meta__.json", b"{}"),
        ],
    )
    pairs = read_tars(tmp_path, "x.tar", max_bytes=4000)
    assert dict(Counter(pair.verdict.reason for pair in pairs)) == {
        "hostile-member": 5,
        None: 2,
        "duplicate-member": 1,
        "no-image": 1,
        "no-caption": 1,
        "too-large": 1,
    }
    assert not list(tmp_path.glob("**/escape*"))
    assert all(pair.origin.source.isprintable() for pair in pairs)


def test_a_damaged_tar_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, [(f"{n}.{e}", picture()) for n in range(4) for e in ("png", "txt")])
    whole = path.read_bytes()
    for damaged in (
        whole[:2000],
        whole[:2048] + b"\xff" * 512 + whole[2560:],
        b"not a tar at all",
        b"",
        whole + b"\xff" * 512,
    ):
        path.write_bytes(damaged)
        with pytest.raises(SourceError, match=r"x\.tar: expected"):
            read_tars(tmp_path, "x.tar")
    header = tarfile.TarInfo("long").create_pax_header(
        {**tarfile.TarInfo("long").get_info(), "size": 0, "name": "n" * 5_000_000}, "utf-8"
    )
    path.write_bytes(header + bytes(1024))
    with pytest.raises(SourceError, match=r"a header of 5\d+ bytes"):
        read_tars(tmp_path, "x.tar", max_bytes=1000)
    with pytest.raises(SourceError, match=r"expected WebDataset tars, found none"):
        read_tars(tmp_path, "none/*.tar")


def test_a_subset_of_uids_chooses_samples(tmp_path: Path) -> None:
    uids = [f"{n:032x}" for n in range(4)]
    members: list[Member] = []
    for n, uid in enumerate(uids):
        members.append((f"{n}.png", picture(n)))
        members.append((f"{n}.json", json.dumps({"caption": f"thing {n}", "uid": uid}).encode()))
    write_tar(tmp_path / "x.tar", members)
    np.save(tmp_path / "some.npy", np.array([(0, 1), (0, 3)], dtype="u8,u8"))
    pairs = read_tars(tmp_path, "x.tar", uids="some.npy")
    assert [pair.caption for pair in pairs] == ["thing 1", "thing 3"]
    np.save(tmp_path / "none.npy", np.array([(9, 9)], dtype="u8,u8"))
    with pytest.raises(SourceError, match=r"expected rows of the subset none\.npy"):
        read_tars(tmp_path, "x.tar", uids="none.npy")


ONE, TWO = (("0.png", picture(0)), ("0.txt", b"zero")), (("1.png", picture(1)), ("1.txt", b"one"))
BOTH = [("0", "zero", None), ("1", "one", None)]


def test_tars_joined_into_one_file_are_all_read(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(pack(ONE) + pack(TWO))
    (tmp_path / "y.tgz").write_bytes(pack(ONE, "w:gz") + pack(TWO, "w:gz"))
    (tmp_path / "z.tar").write_bytes(pack(()) + pack(ONE) + bytes(1 << 20) + pack(TWO))
    for name in ("x.tar", "y.tgz", "z.tar"):
        assert outcomes(read_tars(tmp_path, name)) == BOTH
    (tmp_path / "x.tar").write_bytes(pack(ONE) + b"a log line, say".ljust(512, b"."))
    with pytest.raises(SourceError, match=r"x\.tar: expected nothing or another tar .* at 10240"):
        read_tars(tmp_path, "x.tar")


def test_a_tar_without_its_end_is_read_when_nothing_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = pack((*ONE, *TWO))
    path = tmp_path / "x.tar"
    path.write_bytes(whole[: len(whole.rstrip(b"\0")) // 512 * 512 + 512])
    assert outcomes(read_tars(tmp_path, "x.tar")) == BOTH
    assert "x.tar: has no end block" in capsys.readouterr().err
    path.write_bytes(whole.rstrip(b"\0")[:-1])
    with pytest.raises(SourceError, match=r"x\.tar: expected a complete tar: 1\.txt is cut off"):
        read_tars(tmp_path, "x.tar")


def test_hard_links_are_the_member_that_they_name(tmp_path: Path) -> None:
    members = [
        *ONE,
        hard_link("1.png", "0.png"),
        ("1.txt", b"one"),
        hard_link("2.png", "elsewhere.png"),
        ("2.txt", b"two"),
    ]
    for name in ("x.tar", "x.tar.gz"):
        write_tar(tmp_path / name, members)
        pairs = read_tars(tmp_path, name)
        assert outcomes(pairs) == [*BOTH, ("2", "two", "hostile-member")]
        assert pairs[0].origin.source_sha256 == pairs[1].origin.source_sha256


def test_a_bad_shard_stops_the_run_or_is_a_dropped_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "a.tar", ONE)
    (tmp_path / "b.tar").write_bytes(b"")
    (tmp_path / "c.tar").write_bytes(pack(TWO)[:2000])
    write_tar(tmp_path / "d.tar", TWO)
    with pytest.raises(SourceError, match=r"b\.tar: .* found a file of 0 bytes") as stopped:
        read_tars(tmp_path, "*.tar")
    assert stopped.value.hint == "replace the file, or set on_bad_shard: skip"
    pairs = read_tars(tmp_path, "{a..e}.tar", on_bad_shard="skip")
    bad = ("", "", "bad-shard")
    assert outcomes(pairs) == [("0", "zero", None), bad, bad, ("1", "one", None), bad]
    assert [pair.origin.source for pair in pairs if not pair.kept] == [
        "shard:b.tar",
        "shard:c.tar",
        "shard:e.tar",
    ]
    assert capsys.readouterr().err.count("skipped") == 3
    assert len({pair.key for pair in pairs}) == 5


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PK\x03\x04" + bytes(600), "a zip archive; unpack it"),
        (b"(\xb5/\xfd" + bytes(600), "compressed with zstd"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of git-lfs"),
        (b"<html>" + bytes(600), "a web page"),
    ],
)
def test_what_is_no_tar_is_called_what_it_is(tmp_path: Path, data: bytes, what: str) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(SourceError, match=f"x.tar: expected a complete tar, found {what}"):
        read_tars(tmp_path, "x.tar")


def test_a_tar_without_members_is_reported_and_nothing_at_all_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "0.tar", ONE)
    write_tar(tmp_path / "1.tar", ())
    assert outcomes(read_tars(tmp_path, "*.tar")) == BOTH[:1]
    assert "1.tar: holds no sample" in capsys.readouterr().err
    with pytest.raises(SourceError, match="expected samples, found tars without any member"):
        read_tars(tmp_path, "1.tar")


def test_tars_are_found_by_braces_in_folders_and_packed(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", ONE)
    write_tar(tmp_path / "00001.tar.gz", TWO)
    (tmp_path / "._00000.tar").write_bytes(b"what a Mac leaves")
    for path in (".", "{00000.tar,00001.tar.gz}", "0000{0..1}.tar*", "*.tar*"):
        assert outcomes(read_tars(tmp_path, path)) == BOTH
    with pytest.raises(SourceError, match=r"00001\.tar: cannot be read"):
        read_tars(tmp_path, "{00000..00003}.tar")
    (tmp_path / "below").mkdir()
    (tmp_path / "00000.tar").rename(tmp_path / "below" / "a.tar")
    (tmp_path / "00001.tar.gz").unlink()
    with pytest.raises(SourceError, match="found none but 1 in subfolders") as refused:
        read_tars(tmp_path, ".")
    assert str(refused.value.hint).endswith("/**/*.tar")


def test_the_table_beside_a_packed_tar_is_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar.gz", ONE)
    row = {"key": "9", "status": "failed_to_download", "error_message": "HTTP Error 404: x"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "0.parquet")
    assert outcomes(read_tars(tmp_path, "0.tar.gz")) == [BOTH[0], ("9", "", "http-404")]
    stranger: list[dict[str, Any]] = [{"key": "9", "status": "active", "kept": False}]
    pq.write_table(pa.Table.from_pylist(stranger), tmp_path / "0.parquet")
    assert outcomes(read_tars(tmp_path, "0.tar.gz")) == BOTH[:1]
