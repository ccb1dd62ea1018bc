"""Claims about paths in a store: URLs, ranged reads, uploads in parts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest
from builders.faulty_store import Proxy

from stylear.curate.corpus import local_copies as copies
from stylear.curate.corpus import object_store as objects
from stylear.curate.corpus.local_copies import LocalCopies
from stylear.curate.corpus.object_store import ObjectPath, corpus_path
from stylear.curate.corpus.storage import (
    AtomicFile,
    FileInfo,
    work_folder,
)
from stylear.errors import (
    UsageError,
)

pytestmark = pytest.mark.alone


def test_a_large_object_is_read_in_blocks_whatever_happens_on_the_way(
    store: ObjectPath, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "BLOCK_BYTES", 100_000)
    data = bytes(range(256)) * 4000
    path = store / "big"
    path.write_bytes(data)
    proxy.reset(share=0.5, seed=5)
    with path.open() as stream:
        assert b"".join(iter(lambda: stream.read(30_000), b"")) == data
        assert stream.seek(-10, os.SEEK_END) == len(data) - 10
        assert stream.read() == data[-10:]
        assert stream.seek(500_000) == 500_000
        assert stream.read(7) == data[500_000:500_007]
    assert FileInfo.of(cast(Path, path)).bytes == len(data)
    assert sum(proxy.seen[name] for name in ("500", "503", "cut", "dropped")) > 3


def test_a_large_object_goes_up_in_parts_and_is_seen_when_all_are_there(
    store: ObjectPath, proxy: Proxy
) -> None:
    path = store / "raw" / "00000.tar"
    data = os.urandom(1 << 20) * 12
    proxy.reset(share=0.3, seed=1)
    with AtomicFile(cast(Path, path)) as out:
        out.write(data)
    assert proxy.seen["PUT"] > 2  # parts
    assert sum(proxy.seen[name] for name in ("500", "503", "cut", "dropped")) > 0
    proxy.reset()
    assert path.read_bytes() == data


def test_an_empty_object_reads_as_empty(store: ObjectPath) -> None:
    (store / "empty").write_bytes(b"")
    assert (store / "empty").open().read() == b""
    assert (store / "empty").size() == 0


def test_pictures_read_here_and_there_cost_one_request_a_shard_and_little_room(
    store: ObjectPath, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (store / name).write_bytes(bytes(range(200)))
    proxy.reset()
    near = LocalCopies()
    read = [near.read(cast(Path, store / name), at, 3) for at in (7, 90, 150) for name in "ab"]
    assert read == [bytes(range(at, at + 3)) for at in (7, 90, 150) for _ in "ab"]
    assert proxy.seen["GET"] == 2
    monkeypatch.setattr(copies, "SHARE_OF_FREE", 0.0)  # no room at all
    far = LocalCopies()
    assert far.read(cast(Path, store / "a"), 90, 3) == bytes(range(90, 93))
    with far.open(cast(Path, store / "a")) as stream:
        assert stream.read() == bytes(range(200))


def test_a_path_is_a_path_and_a_url_is_a_place_in_a_store(proxy: Proxy) -> None:
    assert corpus_path("a/b") == Path("a/b")
    assert corpus_path("file:///a/b") == Path("/a/b")
    assert corpus_path(Path("x")) == Path("x")
    place = corpus_path("s3://bucket//team/corpus/")
    assert str(place) == "s3://bucket/team/corpus"
    assert str(place / "raw" / "00000.tar") == "s3://bucket/team/corpus/raw/00000.tar"
    assert (place.name, place.parent.name) == ("corpus", "team")
    assert str((place / "00000.tar").with_suffix(".parquet")).endswith("/corpus/00000.parquet")
    assert corpus_path(str(place)) == place


@pytest.mark.parametrize(
    "url", ["s3://AKIA:wJalr/XUt+n@bucket/corpus", "sftp://me:pass@host/corpus"]
)
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="expected no password in the URL") as caught:
        corpus_path(url)
    message = f"{caught.value.message} {caught.value.hint}"
    assert "wJalr" not in message
    assert "XUt" not in message
    assert "pass@" not in message
    assert "environment" in message


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s4://bucket/corpus", "expected a protocol such as s3"),
        ("s3://", "found no folder"),
        ("sftp://host/corpus", "no client for it is installed"),
    ],
)
def test_a_url_that_cannot_be_a_corpus_is_refused(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        corpus_path(url)


def test_downloads_of_a_store_are_in_the_cache_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, two = (work_folder(corpus_path(f"memory://{name}/corpus")) for name in "ab")
    assert one.parent == two.parent == tmp_path / "stylear" / "work"
    assert one != two
    assert work_folder(tmp_path) == tmp_path / ".work"
