"""Hostile input: every probe with its exact outcome. Nothing crashes, nothing is lost."""

from __future__ import annotations

import csv
import json
import socket
import tarfile
from pathlib import Path
from typing import Any

import pytest
from builders.hostile_inputs import fetch, link, picture, plain, write_tar
from builders.hostile_server import bomb, hostile_server

from stylear.curate.corpus.shards import read_shard, write_shard
from stylear.curate.fetch.guard import GuardedOpener, Limits
from stylear.curate.fetch.loopback import NETWORK
from stylear.curate.fetch.refused import RequestRefused
from stylear.errors import SourceError

# what a list asks for -> what its pair is dropped for (None: kept); BASE is the server
PROBES: dict[str, str | None] = {
    "BASE/ok": None,
    "BASE/to//ok": None,
    "BASE/hops/5": None,
    "BASE/hops/6": "too-many-redirects",
    "BASE/endlessmove": None,
    "BASE/to/http://10.0.0.1/secret.gif": "not-public-address",
    "BASE/to/http://169.254.169.254/latest/meta-data": "not-public-address",
    "BASE/to/http://[::ffff:10.0.0.1]/secret.gif": "not-public-address",
    "BASE/to/file:///etc/passwd": "not-http",
    "BASE/to/data:image/gif;base64,R0lGODlh": "not-http",
    "BASE/endless": "too-large",
    "BASE/large": "too-large",
    "BASE/drip": "timeout",
    "BASE/driphead": "timeout",
    "BASE/short": "cut-off",
    "BASE/long": "corrupt-image",
    "BASE/gzip": "not-an-image",
    "BASE/html": "not-an-image",
    "BASE/empty": "empty",
    "BASE/garbage": "bad-answer",
    "BASE/bomb": "too-many-pixels",
    "BASE/status/404": "http-404",
    "BASE/status/503": "http-503",
    "BASE/tag/noai": "opted-out",
    "BASE/tdm/1": "opted-out",
    "http://10.0.0.1/a.gif": "not-public-address",
    "http://172.16.0.1/a.gif": "not-public-address",
    "http://192.168.0.1/a.gif": "not-public-address",
    "http://169.254.169.254/latest/meta-data": "not-public-address",
    "http://[::1]/a.gif": "not-public-address",
    "http://[fe80::1]/a.gif": "not-public-address",
    "http://[::ffff:169.254.169.254]/a.gif": "not-public-address",
    "http://[64:ff9b::a00:1]/a.gif": "not-public-address",
    "http://0/a.gif": "not-public-address",
    "http://0x0a000001/a.gif": "not-public-address",
    "http://no-such-host.invalid/a.gif": "unknown-host",
    "file:///etc/passwd": "not-http",
    "ftp://10.0.0.1/a.gif": "not-http",
    "gopher://10.0.0.1/": "not-http",
    "data:image/gif;base64,R0lGODlh": "not-http",
    "http://user:secret@example.org/": "bad-url",
    "http://example.org\\@10.0.0.1/": "bad-url",
    "http://example.org/\r\nHost: other": "bad-url",
}


def test_every_probe_of_a_list_ends_as_it_must(tmp_path: Path) -> None:
    with hostile_server() as (base, server):
        with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [(probe.replace("BASE", base), f"probe {n}") for n, probe in enumerate(PROBES)]
            csv.writer(file).writerows([("url", "caption"), *rows])
        source = {"type": "urls", "path": "list.csv", "allow_networks": [NETWORK]}
        limits = {"max_bytes": 1_000_000, "deadline_s": 2.0, "timeout_s": 2.0, "min_success": 0.0}
        pairs = fetch(tmp_path, source | limits)
    assert dict(zip(PROBES, (pair.verdict.reason for pair in pairs), strict=True)) == PROBES
    assert len({pair.key for pair in pairs}) == len(PROBES)
    assert all(bool(pair.image) == pair.kept for pair in pairs)
    assert not [path for path in server.seen if path.startswith(("/secret", "/etc", "/latest"))]


def addresses(monkeypatch: pytest.MonkeyPatch, host: str, ips: list[str]) -> None:
    """Let `host` resolve to addresses."""
    genuine = socket.getaddrinfo

    def getaddrinfo(name: str, port: int, *args: Any, **named: Any) -> Any:
        if name != host:
            return genuine(name, port, *args, **named)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ips]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    "ips", [["93.184.215.14", "10.0.0.1"], ["10.0.0.1", "93.184.215.14"], ["127.0.0.1"]]
)
def test_a_name_with_one_private_address_is_refused_without_a_connection(
    ips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses(monkeypatch, "both.example", ips)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    with pytest.raises(RequestRefused, match="not-public-address"):
        GuardedOpener(Limits()).open("http://both.example/a.gif")


def test_a_bomb_is_refused_by_its_header_wherever_it_lies(tmp_path: Path) -> None:
    """0.9 MB that would be 900 MB: from a folder and from a tar, never decoded."""
    import resource

    data = bomb()
    assert 800_000 < len(data) < 1_000_000
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(data)
    (tmp_path / "photos" / "a.txt").write_text("a bomb", "utf-8")
    members = [("b.png", data), ("b.txt", b"a bomb")]
    write_tar(tmp_path / "x.tar", [plain(name, body) for name, body in members])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fetched = fetch(
        tmp_path, {"type": "folder", "path": "photos"}, {"type": "shards", "path": "x.tar"}
    )
    assert [pair.verdict.reason for pair in fetched] == ["too-many-pixels"] * 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_members_that_are_no_plain_files_are_refused(tmp_path: Path) -> None:
    """Names that leave the folder, links, devices, pipes: a dropped pair each, and nothing is written."""
    image, text = picture(), b"a caption"
    members = [
        *(plain(f"good.{end}", body) for end, body in (("png", image), ("txt", text))),
        *(plain(f"../up.{end}", body) for end, body in (("png", image), ("txt", text))),
        *(plain(f"/etc/absolute.{end}", body) for end, body in (("png", image), ("txt", text))),
        *(plain(f"a/../../up.{end}", body) for end, body in (("png", image), ("txt", text))),
        link("symbolic.png", tarfile.SYMTYPE, "/etc/passwd"),
        plain("symbolic.txt", text),
        link("hard.png", tarfile.LNKTYPE, "/etc/passwd"),  # nothing of this tar
        plain("hard.txt", text),
        link("harder.png", tarfile.LNKTYPE, "../up.png"),
        plain("harder.txt", text),
        link("character.png", tarfile.CHRTYPE),
        plain("character.txt", text),
        link("block.png", tarfile.BLKTYPE),
        plain("block.txt", text),
        link("pipe.png", tarfile.FIFOTYPE),
        plain("pipe.txt", text),
    ]
    write_tar(tmp_path / "x.tar", members)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    outcomes = {
        pair.origin.source.partition("#")[2]: pair.verdict.reason
        for pair in fetch(tmp_path, {"type": "shards", "path": "x.tar"})
    }
    assert outcomes == {
        "good": None,
        "../up": "hostile-member",
        "/etc/absolute": "hostile-member",
        "a/../../up": "hostile-member",
        "symbolic": "hostile-member",
        "hard": "hostile-member",
        "harder": "hostile-member",
        "character": "hostile-member",
        "block": "hostile-member",
        "pipe": "hostile-member",
    }
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_keys_that_come_twice_and_separated_members(tmp_path: Path) -> None:
    one, two = picture(1), picture(2)
    members = [
        plain("twice.png", one),
        plain("twice.png", two),  # the same member again
        plain("twice.txt", b"which?"),
        plain("apart.png", one),
        plain("between.png", two),
        plain("between.txt", b"fine"),
        plain("apart.txt", b"too late"),
        plain("again.png", one),
        plain("again.txt", b"first"),
        plain("other.png", two),
        plain("other.txt", b"fine"),
        plain("again.png", one),  # a whole sample again
        plain("again.txt", b"first"),
    ]
    write_tar(tmp_path / "x.tar", members)
    pairs = fetch(tmp_path, {"type": "shards", "path": "x.tar"})
    assert [(p.origin.source.partition("#")[2], p.verdict.reason) for p in pairs] == [
        ("twice", "duplicate-member"),
        ("apart", "separated-members"),
        ("between", None),
        ("apart", "separated-members"),
        ("again", None),
        ("other", None),
        ("again", "duplicate-row"),
    ]
    assert len({pair.key for pair in pairs}) == 7


RTL = "a \u202ecat\u202c and \u05d0\u05d1 \u200fdog"
CAPTIONS = {  # as it comes -> as it is stored
    "a\0b": "ab",
    "one\ntwo\r\nthree": "one two three",
    RTL: "a cat and \u05d0\u05d1 \u200fdog",
    "x" * 1_000_000: "x" * 1000,
    " \n\0\t ": "",
    "\ud83d alone": " alone".strip(),
}


@pytest.mark.parametrize("place", ["jsonl", "csv", "txt", "tar"])
def test_captions_are_made_safe_wherever_they_come_from(tmp_path: Path, place: str) -> None:
    captions = [c for c in CAPTIONS if place == "jsonl" or c.isascii() or c == RTL]
    if place in ("jsonl", "csv"):
        rows = [{"url": f"ftp://host/{n}", "caption": c} for n, c in enumerate(captions)]
        path = tmp_path / f"list.{place}"
        if place == "jsonl":
            path.write_text("\n".join(json.dumps(row) for row in rows), "ascii")
        else:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ("url", "caption"))
                writer.writeheader()
                writer.writerows(rows)
        source: dict[str, Any] = {"type": "urls", "path": path.name}
    elif place == "txt":
        (tmp_path / "photos").mkdir()
        for n, caption in enumerate(captions):
            (tmp_path / "photos" / f"{n}.png").write_bytes(picture(n))
            (tmp_path / "photos" / f"{n}.txt").write_bytes(caption.encode())
        source = {"type": "folder", "path": "photos"}
    else:
        members = [(f"{n}.png", picture(n)) for n in range(len(captions))]
        both = [m for n, c in enumerate(captions) for m in (members[n], (f"{n}.txt", c.encode()))]
        write_tar(tmp_path / "x.tar", [plain(name, body) for name, body in both])
        source = {"type": "shards", "path": "x.tar"}
    pairs = fetch(tmp_path, source)
    assert [pair.caption for pair in pairs] == [CAPTIONS[caption] for caption in captions]
    assert [pair.verdict.reason == "no-caption" for pair in pairs] == [
        not CAPTIONS[caption] for caption in captions
    ]
    write_shard(tmp_path / "out", 0, pairs)
    assert list(read_shard(tmp_path / "out" / "00000.tar")) == pairs


def test_an_endless_line_in_a_small_gz_is_an_error(tmp_path: Path) -> None:
    import gzip

    from stylear.curate.fetch.lists import text as lists

    with gzip.open(tmp_path / "a.csv.gz", "wb", 9) as file:
        file.write(b"url,caption\n")
        for _ in range(40):
            file.write(b"x" * 1_000_000)
    assert (tmp_path / "a.csv.gz").stat().st_size < 100_000
    with pytest.raises(SourceError, match=rf"lines of fewer than {lists.MAX_LINE:,}"):
        fetch(tmp_path, {"type": "urls", "path": "a.csv.gz"})
