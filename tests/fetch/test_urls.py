"""Claims about URL lists: every row a pair in list order, downloads reused, a kill loses nothing."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from builders.url_sources import rows_of, source, stream, write_list
from PIL import Image

from stylear.curate.fetch import urls, worker
from stylear.curate.fetch.loopback import NETWORK, FileHandler
from stylear.curate.fetch.times import strip_times
from stylear.curate.recipe import UrlsSource, check_recipe
from stylear.errors import SourceError


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """(base URL, paths asked for): twelve pictures, one page that is none, everything a little slow."""
    folder = tmp_path / "site"
    folder.mkdir()
    for n in range(12):
        Image.new("RGB", (24, 24), (n * 20, 0, 99)).save(folder / f"{n}.png")
    (folder / "page.html").write_bytes(b"<html>")
    requests: list[str] = []

    class Slow(FileHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
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
    yield f"http://127.0.0.1:{server.server_address[1]}", requests
    server.shutdown()
    server.server_close()
    thread.join()


def test_every_row_becomes_a_pair_in_list_order(
    tmp_path: Path, site: tuple[str, list[str]]
) -> None:
    base, requests = site
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
    assert Counter(requests)["/1.png"] == 0

    sent = (tmp_path / "site" / "0.png").read_bytes()
    assert pairs[1].origin.source_sha256 == hashlib.sha256(sent).hexdigest()
    (images,) = (tmp_path / "work" / "urls").glob("*/images.bin")
    assert sent in images.read_bytes()  # img2dataset stored what the server sent

    requests.clear()
    assert list(stream(tmp_path, source())) == pairs
    assert requests == []

    refused = list(stream(tmp_path, source(allow_networks=[], min_success=0), "other"))
    assert {pair.verdict.reason for pair in refused if not pair.kept} >= {"not-public-address"}
    assert not any(pair.kept for pair in refused)
    assert requests == []
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
        pairs = urls.download_rows(
            urls.plan_rows(plan), plan, tmp_path / "work", 1 << 20, counts.append
        )
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
    base, requests = site
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

    requests.clear()
    resumed = list(stream(tmp_path, source()))
    assert list(strip_times(resumed[:4], {})) == list(strip_times(first, {}))
    assert all(pair.kept for pair in resumed)
    assert not leftover.exists()
    assert len(resumed) == 12
    assert len(requests) == 12 - 3 * len(finished) + 3  # what was missing, and the damaged block


def test_the_downloading_process_dies_with_its_parent(
    tmp_path: Path, site: tuple[str, list[str]]
) -> None:
    """Its stdin ends when the parent is killed; nothing half done gets the final name."""
    base, requests = site
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
    while not requests and time.monotonic() < deadline:
        time.sleep(0.02)
    process.stdin.close()
    assert process.wait(5) == 0
    assert 0 < len(requests) < 108
    assert not (tmp_path / "block").exists()
    assert list(tmp_path.glob("block.part-*"))


def test_a_downloading_process_that_breaks_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_list(tmp_path / "list.csv", [("http://127.0.0.1:9/a", "x")], ("url", "caption"))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SourceError, match="the downloading process ended early"):
        list(stream(tmp_path, source()))


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
