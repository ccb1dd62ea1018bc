"""Downloads: blocks of URLs fetched by the downloading process, kept on disk, read back in order."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from stylear.curate.fetch.guard import Limits
from stylear.curate.fetch.worker import IMAGES, ROWS
from stylear.errors import SourceError
from stylear.pair import Scalar, digest

VERSION = 2  # raise when the same URLs and limits should be downloaded again
LOG = "downloads.log"
TEMPORARY = "tmp"  # of the downloading processes
FETCHED_AT = "_fetched_at"  # a detail that fetch takes out again: it differs in every run

# What urllib and img2dataset say -> the reason a pair is dropped for; the first match wins.
REASONS = (
    (r"X-Robots-Tag", "opted-out"),
    (r"HTTP Error 30\d", "too-many-redirects"),
    (r"timed out|TimeoutError", "timeout"),
    (r"Connection refused", "connection-refused"),
    (r"reset by peer|without response|IncompleteRead|Broken pipe|EOF occurred", "connection-lost"),
    (r"CERTIFICATE|SSL|TLS", "tls-failed"),
    (r"unreachable|No route", "unreachable"),
    (r"Name or service|name resolution|getaddrinfo", "unknown-host"),
)


def reason_of(error: str | None) -> str:
    """The kebab-case reason for an error message of img2dataset."""
    text = error or ""
    if refused := re.search(r"refused\[([a-z-]+)\]", text):
        return refused[1]
    for pattern, reason in REASONS:
        if re.search(pattern, text):
            return reason
    status = re.search(r"HTTP Error (\d{3})", text)
    return f"http-{status[1]}" if status else "download-failed"


@dataclass(frozen=True, slots=True)
class Download:
    """What came of one URL: its bytes, or why there are none, and what the server said."""

    data: bytes
    reason: str | None = None
    sha256: str | None = None  # of the data
    evidence: Mapping[str, Scalar] = field(default_factory=dict)


class Damaged(Exception):
    """A block on the disk is not what was downloaded."""


class Downloads:
    """Finished blocks under `folder`, and the processes that make the missing ones (started when needed).

    `advance` is called with the number of URLs that were tried, as the processes report it.
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        threads: int,
        retries: int,
        processes: int = 1,
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.folder, self.limits = folder, limits
        rate = limits.host_requests_per_s
        share = replace(limits, host_requests_per_s=None if rate is None else rate / processes)
        self._workers = [
            Worker(folder, share, threads, retries, self._report) for _ in range(processes)
        ]
        self._asked: dict[Path, Worker] = {}
        self._advance, self._lock = advance, threading.Lock()
        self._reported: Counter[str] = Counter()
        self._count = 0

    def __enter__(self) -> Downloads:
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob("*.part-*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the processes; what they have not finished is not kept."""
        for worker in self._workers:
            worker.stop()

    def place(self, urls: list[str]) -> Path:
        """Where the block of these URLs lies; other limits give other downloads."""
        outcome = asdict(self.limits)
        for name in ("contact", "host_requests_per_s"):
            outcome.pop(name)
        outcome["allow_networks"] = list(self.limits.allow_networks)
        return self.folder / digest("block", VERSION, json.dumps(outcome, sort_keys=True), *urls)

    def request(self, urls: list[str]) -> None:
        """Ask for a block unless it is there."""
        directory = self.place(urls)
        if urls and not directory.is_dir():
            worker = self._workers[self._count % len(self._workers)]
            self._count += 1
            self._asked[directory] = worker
            worker.request(directory, urls)

    def results(self, urls: list[str]) -> Iterator[Download]:
        """The downloads of a block that was requested, in the order of `urls`; waits for it.

        A block that is damaged is discarded and downloaded again. Raises SourceError when it is
        damaged again.
        """
        if not urls:
            return
        directory, done = self.place(urls), 0
        for last in (False, True):
            self._wait(directory)
            try:
                with Block(directory) as block:
                    for row in range(done, len(urls)):
                        yield block.read(row)
                        done += 1
                return
            except Damaged as error:
                if last:
                    raise SourceError(
                        f"{directory}: the downloads on the disk are damaged: {error}",
                        hint="check the disk, then run the same command again",
                    ) from error
                shutil.rmtree(directory)
                self.request(urls)

    def outcomes(self, urls: list[str]) -> Counter[str | None]:
        """How many downloads of a requested block failed for which reason (None: did not); waits for it."""
        if not urls:
            return Counter()
        self._wait(self.place(urls))
        try:
            with Block(self.place(urls)) as block:
                return Counter(reason_of(e["error"]) if e["error"] else None for e in block.rows)
        except (Damaged, KeyError, TypeError):
            return Counter()  # `results` downloads it again

    def take_reported(self, urls: list[str]) -> int:
        """How many URLs of a finished block `advance` has counted; asked once."""
        with self._lock:
            return self._reported.pop(str(self.place(urls)), 0)

    def count(self, rows: int) -> None:
        """Advance by rows that no process reports."""
        with self._lock:
            self._advance(rows)

    def _report(self, directory: str, count: int) -> None:
        """Count what a process says; each has a thread of its own that reads its answers."""
        with self._lock:
            self._reported[directory] += count
            self._advance(count)

    def discard(self, urls: list[str]) -> None:
        """Forget a block, so that another run asks its servers again."""
        shutil.rmtree(self.place(urls), ignore_errors=True)

    def _wait(self, directory: Path) -> None:
        worker = self._asked.pop(directory, None)
        if worker is not None:
            worker.wait(directory)


class Worker:
    """One downloading process."""

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        threads: int,
        retries: int,
        report: Callable[[str, int], None],
    ) -> None:
        self._folder, self._limits, self._threads, self._retries = folder, limits, threads, retries
        self._report = report
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._replies: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._log: Any = None

    def request(self, directory: Path, urls: list[str]) -> None:
        """Ask for a block. Raises SourceError when the process is gone."""
        if self._process is None:
            self._process = self._start()
        self._write({"directory": str(directory), "urls": urls})

    def wait(self, directory: Path) -> None:
        """Until the block is finished. Raises SourceError when the downloading process gives up."""
        while not directory.is_dir():
            reply = self._replies.get()
            if reply is None:
                raise self._ended()
            if "failed" in reply:
                if "errno" in reply:
                    raise OSError(reply["errno"], reply["error"], str(directory))
                raise SourceError(
                    f"downloading failed: {reply['error']}",
                    hint=f"see {self._folder / LOG}; finished downloads are kept",
                )

    def stop(self) -> None:
        """End the process: all that was wanted is on disk, or is not wanted any more."""
        if self._process is not None:
            self._process.kill()
            if self._reader is not None:
                self._reader.join()
            self._process.communicate()
            self._process = None
            shutil.rmtree(self._folder / TEMPORARY, ignore_errors=True)
        if self._log is not None:
            self._log.close()

    def _start(self) -> subprocess.Popen[str]:
        """The downloading process, with its settings sent."""
        self._log = (self._folder / LOG).open("a", encoding="utf-8")
        # img2dataset's import of wandb leaves folders in the temporary directory: this one is removed
        temporary = self._folder / TEMPORARY
        temporary.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stylear.curate.fetch.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            env={
                **os.environ,
                "NO_ALBUMENTATIONS_UPDATE": "1",
                "PYTHONPATH": _python_path(),
                "TMPDIR": str(temporary),
            },
        )
        limits = asdict(self._limits)
        networks = limits.pop("allow_networks")
        self._write(
            {
                "limits": limits,
                "allow_networks": networks,
                "threads": self._threads,
                "retries": self._retries,
            }
        )
        self._reader = threading.Thread(target=self._read_replies, daemon=True)
        self._reader.start()
        return self._process

    def _read_replies(self) -> None:
        """Pass on what the process says until it ends: its progress at once, the rest to `wait`."""
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            reply = json.loads(line)
            if "progress" in reply:
                self._report(reply["progress"], reply["count"])
            else:
                self._replies.put(reply)
        self._replies.put(None)

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _ended(self) -> SourceError:
        """The error for a downloading process that is no more."""
        lines = (self._folder / LOG).read_text("utf-8", "replace").strip().splitlines()
        return SourceError(
            f"the downloading process ended early: {lines[-1][:300] if lines else 'no message'}",
            hint=f"see {self._folder / LOG}; run the same command again to continue",
        )


class Block:
    """One finished block of downloads. Raises Damaged when it is not what was downloaded."""

    def __init__(self, directory: Path) -> None:
        try:
            self.rows = json.loads((directory / ROWS).read_text("utf-8"))
            self._images = (directory / IMAGES).open("rb")
        except (OSError, ValueError) as error:
            raise Damaged(str(error)) from error

    def __enter__(self) -> Block:
        return self

    def __exit__(self, *_: object) -> None:
        self._images.close()

    def read(self, row: int) -> Download:
        """What came of the URL in this row."""
        try:
            entry = self.rows[row]
            evidence = evidence_of(entry)
            if entry["error"] is not None:
                return Download(b"", reason_of(entry["error"]), None, evidence)
            self._images.seek(entry["start"])
            data = self._images.read(entry["bytes"])
            sha256 = entry["sha256"]
        except (KeyError, IndexError, TypeError) as error:
            raise Damaged(f"row {row}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Damaged(f"the bytes of row {row} differ from their hash")
        return Download(data, None, sha256, evidence)


def evidence_of(entry: Mapping[str, Any]) -> dict[str, Scalar]:
    """What the guard noted about a download, under the names that a pair's details give it."""
    names = {"final_url": "final_url", "status": "http_status", "content_type": "content_type"}
    names |= {"directives": "opt_out_headers", "fetched_at": FETCHED_AT}
    return {name: entry[key] for key, name in names.items() if entry.get(key) is not None}


def _python_path() -> str:
    """The module search path of this process, so that the child finds the same packages."""
    return os.pathsep.join(entry for entry in sys.path if entry)
