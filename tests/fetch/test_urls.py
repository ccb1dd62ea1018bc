"""Claims about URL lists: every row a pair in list order, downloads reused, a kill loses nothing."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylear.curate.fetch import fetch_raw, urls, worker
from stylear.curate.fetch.loopback import NETWORK, FileHandler
from stylear.curate.fetch.times import untimed
from stylear.curate.recipe import UrlsSource, check_recipe
from stylear.errors import SourceError, StylearError
from stylear.pair import Pair


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """(base URL, paths asked for): twelve pictures, one page that is none, everything a little slow."""
    folder = tmp_path / "site"
    folder.mkdir()
    for n in range(12):
        Image.new("RGB", (24, 24), (n * 20, 0, 99)).save(folder / f"{n}.png")
    (folder / "page.html").write_bytes(b"<html>")
    asked: list[str] = []

    class Slow(FileHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            time.sleep(0.02 + 0.05 * ("11" in self.path))
            if self.path == "/moved":
                self.send_response(301)
                self.send_header("Location", "/3.png")
                self.end_headers()
            elif self.path == "/no-ai":
                self.send_response(200)
                self.send_header("X-Robots-Tag", "noai")
                self.end_headers()
            else:
                super().do_GET()

    Slow.folder = folder
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def source(path: str = "list.csv", **changes: Any) -> dict[str, Any]:
    return {"type": "urls", "path": path, "allow_networks": [NETWORK], "threads": 4, **changes}


def stream(base: Path, raw: dict[str, Any], work: str = "work") -> Iterator[Pair]:
    recipe = check_recipe({"name": "test", "image": {"size": 16}, "raw": [raw]}, base)
    return fetch_raw(recipe, base / work)


def write_list(path: Path, rows: list[tuple[Any, ...]], header: tuple[str, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def test_every_row_becomes_a_pair_in_list_order(
    tmp_path: Path, site: tuple[str, list[str]]
) -> None:
    base, asked = site
    rows = [
        (f"{base}/11.png", "the slowest comes first", 0.1),
        (f"{base}/0.png", "thing \x00 zero\n", 0.2),
        (f"{base}/0.png", "another caption", 0.3),
        (f"{base}/0.png", "another caption", 0.4),
        (f"{base}/none.png", "missing", ""),
        (f"{base}/page.html", "no image", ""),
        (f"{base}/moved", "moved", ""),
        (f"{base}/no-ai", "opted out", ""),
        ("file:///etc/passwd", "a file", ""),
        ("http://10.0.0.1/x.png", "a private place", ""),
        ("", "no url", ""),
        (f"{base}/1.png", "", ""),
        (f"{base}/2.png", "w" * 200_000, ""),
    ]
    write_list(tmp_path / "list.csv", rows, ("URL", "TEXT", "AESTHETIC_SCORE"))
    pairs = list(stream(tmp_path, source()))
    assert [pair.verdict.reason for pair in pairs] == [
        None,
        None,
        None,
        "duplicate-row",
        "http-404",
        "not-an-image",
        None,
        "opted-out",
        "not-http",
        "not-public-address",
        "not-http",
        "no-caption",
        None,
    ]
    assert len({pair.key for pair in pairs}) == len(rows)
    assert [pair.caption for pair in pairs[:3]] == [
        "the slowest comes first",
        "thing zero",
        "another caption",
    ]
    assert pairs[1].origin.source == f"{base}/0.png"
    assert pairs[1].origin.details["aesthetic_score"] == "0.2"
    assert pairs[6].origin.details["final_url"] == f"{base}/3.png"
    assert pairs[12].origin.details["caption_characters"] == 200_000
    assert Counter(asked)["/1.png"] == 0

    sent = (tmp_path / "site" / "0.png").read_bytes()
    assert pairs[1].origin.source_sha256 == hashlib.sha256(sent).hexdigest()
    (images,) = (tmp_path / "work" / "urls").glob("*/images.bin")
    assert sent in images.read_bytes()  # img2dataset stored what the server sent

    asked.clear()
    assert list(stream(tmp_path, source())) == pairs
    assert asked == []

    refused = list(stream(tmp_path, source(allow_networks=[], min_success=0), "other"))
    assert {pair.verdict.reason for pair in refused if not pair.kept} >= {"not-public-address"}
    assert not any(pair.kept for pair in refused)
    assert asked == []
    assert [pair.key for pair in refused] == [pair.key for pair in pairs]


def test_a_download_leaves_nothing_in_the_temporary_directory(
    tmp_path: Path, site: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """img2dataset imports wandb, which leaves two empty folders in each process."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    (tmp_path / "list.csv").write_text(f"url,caption\n{site[0]}/1.png,one\n")
    assert [pair.caption for pair in stream(tmp_path, source())] == ["one"]
    assert list(temporary.iterdir()) == []
    assert not [path for path in (tmp_path / "work").rglob("*wandb*") if path.is_dir()]


def test_the_bar_counts_urls_and_not_blocks(
    tmp_path: Path, site: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row once: what is downloaded when it is tried, the rest when it is read."""
    monkeypatch.setattr(urls, "BLOCK_ROWS", 6)
    rows = [f"{site[0]}/{n}.png,caption {n}" for n in range(10)] + ["ftp://a/b,no"]
    (tmp_path / "list.csv").write_text("\n".join(["url,caption", *rows]))
    plan = check_recipe({"name": "test", "raw": [source(processes=2)]}, tmp_path).raw[0]
    assert isinstance(plan, UrlsSource)
    for expected in (6, 0):  # the second time nothing is downloaded
        counts: list[int] = []
        pairs = urls.downloaded(urls.plans(plan), plan, tmp_path / "work", 1 << 20, counts.append)
        next(pairs)
        assert sum(counts) >= expected
        assert len(list(pairs)) == 10
        assert sum(counts) == 11


def test_progress_is_sent_as_urls_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PROGRESS_S", 0)
    answers = io.StringIO()
    progress = worker.Progress("block", answers, threading.Lock())
    progress.advance()
    progress.advance()
    assert answers.getvalue().splitlines() == ['{"progress": "block", "count": 1}'] * 2


def test_a_stopped_download_goes_on_where_it_was(
    tmp_path: Path, site: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, asked = site
    monkeypatch.setattr(urls, "BLOCK_ROWS", 3)
    monkeypatch.setattr(urls, "BLOCKS_AHEAD", 1)
    write_list(
        tmp_path / "list.csv",
        [(f"{base}/{n}.png", f"thing {n}") for n in range(12)],
        ("url", "caption"),
    )
    pairs = stream(tmp_path, source())
    first = [next(pairs) for _ in range(4)]
    pairs.close()  # type: ignore[attr-defined]
    folder = tmp_path / "work" / "urls"
    finished = sorted(path.name for path in folder.iterdir() if path.suffix == "")
    assert len(finished) >= 2

    leftover = folder / "0123.part-99"
    leftover.mkdir()
    (leftover / "images.bin").write_bytes(b"cut off")
    damaged = next(path for path in folder.iterdir() if path.name in finished)
    images = damaged / "images.bin"
    images.write_bytes(images.read_bytes()[:-1])

    asked.clear()
    resumed = list(stream(tmp_path, source()))
    assert list(untimed(resumed[:4], {})) == list(untimed(first, {}))
    assert all(pair.kept for pair in resumed)
    assert not leftover.exists()
    assert len(resumed) == 12
    assert len(asked) == 12 - 3 * len(finished) + 3  # what was missing, and the damaged block


def test_the_downloading_process_dies_with_its_parent(
    tmp_path: Path, site: tuple[str, list[str]]
) -> None:
    """Its stdin ends when the parent is killed; nothing half done gets the final name."""
    base, asked = site
    process = subprocess.Popen(
        [sys.executable, "-m", "stylear.curate.fetch.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": ":".join(p for p in sys.path if p)},
    )
    assert process.stdin is not None
    settings = {"limits": {}, "allow_networks": [NETWORK], "threads": 1, "retries": 0}
    block = {
        "directory": str(tmp_path / "block"),
        "urls": [f"{base}/{n}.png" for n in range(12)] * 9,
    }
    process.stdin.write(f"{json.dumps(settings)}\n{json.dumps(block)}\n".encode())
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not asked and time.monotonic() < deadline:
        time.sleep(0.02)
    process.stdin.close()
    assert process.wait(5) == 0
    assert 0 < len(asked) < 108
    assert not (tmp_path / "block").exists()
    assert list(tmp_path.glob("block.part-*"))


def rows_of(tmp_path: Path, name: str, **changes: Any) -> list[tuple[str, str]]:
    pairs = stream(tmp_path, source(name, **changes))
    return [(pair.caption, str(pair.verdict.reason)) for pair in pairs]


def test_every_kind_of_list_is_read_alike(tmp_path: Path) -> None:
    """None of these rows can be downloaded, so no process is started."""
    table = {"url": ["ftp://a/1", "ftp://a/2", None], "caption": ["one", 'two, "2"', None]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    rows = list(zip(table["url"], table["caption"], strict=True))
    write_list(tmp_path / "a.csv", rows, ("url", "caption"))
    lines = [json.dumps({"url": url, "caption": caption}) for url, caption in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), "utf-8")
    (tmp_path / "a.tsv").write_bytes(b'url\tcaption\nftp://a/1\tone\nftp://a/2\ttwo, "2"\n\t\n')
    with gzip.open(tmp_path / "b.csv.gz", "wb") as file:
        file.write((tmp_path / "a.csv").read_bytes())
    (tmp_path / "a.json").write_text(json.dumps([json.loads(line) for line in lines]), "utf-8")
    with gzip.open(tmp_path / "c.json.gz", "wb") as file:
        file.write((tmp_path / "a.json").read_bytes())
    expected = [("one", "not-http"), ('two, "2"', "not-http"), ("", "no-caption")]
    for name in ("a.parquet", "a.csv", "a.jsonl", "a.tsv", "b.csv.gz", "a.json", "c.json.gz"):
        assert rows_of(tmp_path, name) == expected, name
    assert rows_of(tmp_path, "a.csv", limit=2) == expected[:2]
    assert len(rows_of(tmp_path, "a.*s*")) == 12


def test_list_mistakes_name_file_and_columns(tmp_path: Path) -> None:
    cases = {
        "missing.csv": (None, r"missing\.csv: expected a list"),
        "words.txt": (b"http://a/", r"words\.txt: expected one of \.parquet, \.csv"),
        "other.csv": (b"link,words\na,b\n", r"url column called 'url' or .* found 'link', 'words'"),
        "half.csv": (b"url,words\na,b\n", r"caption column called .* found 'url', 'words'"),
        "empty.csv": (b"", r"empty\.csv: expected rows, found none"),
        "broken.parquet": (b"PAR1 not really", r"broken\.parquet: expected a Parquet file"),
        "broken.json": (b'[{"url": "a"', r"broken\.json: expected JSON"),
        "object.json": (
            b'{"url": "a"}',
            r"object\.json: expected an array of objects, .* found an object with 'url'",
        ),
        "numbers.json": (b"[1]", r"numbers\.json, line 1: expected rows with a url and a caption"),
        "list.jsonl": (b"[1]", r"list\.jsonl, line 1: expected rows with a url and a caption"),
        "broken.csv.gz": (b"\x1f\x8b junk", r"broken\.csv\.gz: cannot be read"),
    }
    for name, (data, message) in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError, match=message):
            rows_of(tmp_path, name)
    with pytest.raises(SourceError, match="called 'Link'"):
        rows_of(tmp_path, "half.csv", url_column="Link")


def test_bytes_that_are_no_utf8_stop_a_list_until_its_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"url,caption\nftp://a,caf\xe9 \x00\nftp://b,second\n")
    with pytest.raises(
        SourceError, match=r"a\.csv, line 2: expected UTF-8 text, found 0xe9"
    ) as caught:
        rows_of(tmp_path, "a.csv")
    assert "encoding: cp1252" in (caught.value.hint or "")
    found = rows_of(tmp_path, "a.csv", encoding="cp1252")
    assert [caption for caption, _ in found] == ["café", "second"]


def test_a_wrong_network_is_a_mistake_of_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(StylearError, match="allow_networks"):
        list(stream(tmp_path, source(allow_networks=["127.0.0.1/8"])))


def test_a_downloading_process_that_breaks_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_list(tmp_path / "list.csv", [("http://127.0.0.1:9/a", "x")], ("url", "caption"))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SourceError, match="the downloading process ended early"):
        list(stream(tmp_path, source()))


def subset(path: Path, uids: list[str]) -> None:
    """A DataComp subset file."""
    halves = [(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids]
    np.save(path, np.array(halves, dtype="u8,u8"))


def test_a_subset_of_uids_chooses_rows(tmp_path: Path) -> None:
    rng = random.Random(0)
    uids = [f"{rng.getrandbits(128):032x}" for _ in range(50)]
    uids[7] = uids[3][:16] + uids[7][16:]  # the same high half
    rows = [(f"ftp://a/{n}", f"thing {n}", uid) for n, uid in enumerate(uids)]
    write_list(tmp_path / "pool.csv", rows, ("url", "caption", "uid"))
    chosen = [uids[n] for n in (3, 20, 21, 49)]
    subset(tmp_path / "sorted.npy", sorted([*chosen, "0" * 32, "f" * 32]))
    subset(tmp_path / "unsorted.npy", [*chosen, "0" * 32])
    for name in ("sorted.npy", "unsorted.npy"):
        found = rows_of(tmp_path, "pool.csv", uids=name)
        assert [caption for caption, _ in found] == ["thing 3", "thing 20", "thing 21", "thing 49"]
    assert len(rows_of(tmp_path, "pool.csv", uids="sorted.npy", limit=2)) == 2

    subset(tmp_path / "other.npy", ["1" * 32])
    with pytest.raises(SourceError, match=r"expected rows of the subset other\.npy, found none"):
        rows_of(tmp_path, "pool.csv", uids="other.npy")
    np.save(tmp_path / "wrong.npy", np.zeros(3))
    with pytest.raises(SourceError, match="one dimension of u8,u8, found 1 of float64"):
        rows_of(tmp_path, "pool.csv", uids="wrong.npy")
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match=r"expected a subset of uids \(\.npy\)"):
        rows_of(tmp_path, "pool.csv", uids="pickled.npy")
    with pytest.raises(SourceError, match=r"none\.npy: expected a subset"):
        rows_of(tmp_path, "pool.csv", uids="none.npy")


def test_bytes_must_have_the_hash_of_the_list(tmp_path: Path, site: tuple[str, list[str]]) -> None:
    base, _ = site
    right = hashlib.sha256((tmp_path / "site" / "0.png").read_bytes()).hexdigest()
    rows = [(f"{base}/0.png", "right", right.upper()), (f"{base}/1.png", "wrong", right)]
    write_list(tmp_path / "list.csv", rows, ("url", "caption", "sha256"))
    assert rows_of(tmp_path, "list.csv", sha256_column="sha256") == [
        ("right", "None"),
        ("wrong", "hash-mismatch"),
    ]
    with pytest.raises(SourceError, match="expected a column 'md5', found 'sha256'"):
        rows_of(tmp_path, "list.csv", sha256_column="md5")
