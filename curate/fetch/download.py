"""Downloads: worker processes fetch blocks of URLs to the disk; the blocks are read back in order."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from stylear.curate.fetch.blocks import Block, Damaged, Download, classify_error
from stylear.curate.fetch.guard import Limits
from stylear.errors import SourceError
from stylear.pair import digest

VERSION = 2  # raise when the same URLs and limits should be downloaded again
LOG = "downloads.log"
TEMPORARY = "tmp"  # of the downloading processes


class Downloads:
    """The finished blocks below `folder`, and the worker processes that download missing ones.

    Workers start on first use. `advance` is called with the number of URLs that they report as tried.
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
        """Stop the workers; unfinished blocks are discarded."""
        for worker in self._workers:
            worker.stop()

    def block_dir(self, urls: list[str]) -> Path:
        """The folder of the block of these URLs; other limits give another folder."""
        limits = asdict(self.limits)
        for name in ("contact", "host_requests_per_s"):  # they change no download
            limits.pop(name)
        limits["allow_networks"] = list(self.limits.allow_networks)
        return self.folder / digest("block", VERSION, json.dumps(limits, sort_keys=True), *urls)

    def request(self, urls: list[str]) -> None:
        """Request a block from a worker unless it is finished."""
        directory = self.block_dir(urls)
        if urls and not directory.is_dir():
            worker = self._workers[self._count % len(self._workers)]
            self._count += 1
            self._asked[directory] = worker
            worker.request(directory, urls)

    def wait_for_results(self, urls: list[str]) -> Iterator[Download]:
        """Wait for a requested block and yield its downloads in the order of `urls`.

        A damaged block is discarded and downloaded again. Raises SourceError if it is damaged again.
        """
        if not urls:
            return
        directory, done = self.block_dir(urls), 0
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

    def count_reasons(self, urls: list[str]) -> Counter[str | None]:
        """Wait for a requested block and count its downloads by reason (None: succeeded)."""
        if not urls:
            return Counter()
        self._wait(self.block_dir(urls))
        try:
            with Block(self.block_dir(urls)) as block:
                return Counter(
                    classify_error(e["error"]) if e["error"] else None for e in block.rows
                )
        except (Damaged, KeyError, TypeError):
            return Counter()  # `wait_for_results` downloads it again

    def pop_reported_count(self, urls: list[str]) -> int:
        """How many URLs of a finished block were reported to `advance`; 0 when called again."""
        with self._lock:
            return self._reported.pop(str(self.block_dir(urls)), 0)

    def advance_rows(self, rows: int) -> None:
        """Call `advance` for rows that no worker reports."""
        with self._lock:
            self._advance(rows)

    def _report(self, directory: str, count: int) -> None:
        """Count what a worker reports; called from the thread that reads its replies."""
        with self._lock:
            self._reported[directory] += count
            self._advance(count)

    def discard(self, urls: list[str]) -> None:
        """Delete a block, so that the next run downloads it again."""
        shutil.rmtree(self.block_dir(urls), ignore_errors=True)

    def _wait(self, directory: Path) -> None:
        worker = self._asked.pop(directory, None)
        if worker is not None:
            worker.wait(directory)


class Worker:
    """One worker process and the pipe to it."""

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
        """Request a block. Raises SourceError if the process has ended."""
        if self._process is None:
            self._process = self._start()
        self._write({"directory": str(directory), "urls": urls})

    def wait(self, directory: Path) -> None:
        """Wait until the block is finished. Raises SourceError if the worker fails."""
        while not directory.is_dir():
            reply = self._replies.get()
            if reply is None:
                raise self._ended_early_error()
            if "failed" in reply:
                if "errno" in reply:
                    raise OSError(reply["errno"], reply["error"], str(directory))
                raise SourceError(
                    f"downloading failed: {reply['error']}",
                    hint=f"see {self._folder / LOG}; finished downloads are kept",
                )

    def stop(self) -> None:
        """Kill the process; finished blocks are on the disk."""
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
        """Start the process and send it its settings."""
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
        """Read the replies of the process until it ends: report progress, queue the rest for `wait`."""
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
            raise self._ended_early_error() from None

    def _ended_early_error(self) -> SourceError:
        """The error for a worker process that ended early."""
        lines = (self._folder / LOG).read_text("utf-8", "replace").strip().splitlines()
        return SourceError(
            f"the downloading process ended early: {lines[-1][:300] if lines else 'no message'}",
            hint=f"see {self._folder / LOG}; run the same command again to continue",
        )


def _python_path() -> str:
    """The module search path of this process, for the child to find the same packages."""
    return os.pathsep.join(entry for entry in sys.path if entry)
