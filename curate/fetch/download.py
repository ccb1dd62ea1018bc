"""Downloads: blocks of URLs fetched by the downloading process, kept on disk, read back in order."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from curate.fetch.guard import Limits
from curate.fetch.worker import FINAL_URLS
from stylear.errors import SourceError
from stylear.pair import digest

VERSION = 1  # raise when the same URLs and limits should be downloaded again
LOG = "downloads.log"

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
    """What came of one URL: its bytes, or why there are none."""

    data: bytes
    reason: str | None = None
    final_url: str | None = None  # when redirects led elsewhere


class Downloads:
    """Finished blocks under `folder`, and the process that makes the missing ones (started when needed)."""

    def __init__(self, folder: Path, limits: Limits, threads: int, retries: int) -> None:
        self.folder, self.limits, self.threads, self.retries = folder, limits, threads, retries
        self._process: subprocess.Popen[str] | None = None
        self._log: Any = None

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
        if self._process is not None:
            self._process.kill()  # all that was wanted is on disk, or is not wanted any more
            self._process.communicate()
        if self._log is not None:
            self._log.close()

    def place(self, urls: list[str]) -> Path:
        """Where the block of these URLs lies; other limits give other downloads."""
        outcome = asdict(self.limits)
        outcome.pop("contact")
        outcome["allow_networks"] = list(self.limits.allow_networks)
        return self.folder / digest("block", VERSION, json.dumps(outcome, sort_keys=True), *urls)

    def request(self, urls: list[str]) -> None:
        """Ask for a block unless it is there."""
        directory = self.place(urls)
        if urls and not directory.is_dir():
            self._send({"directory": str(directory), "urls": urls})

    def results(self, urls: list[str]) -> Iterator[Download]:
        """The downloads of a block that was requested, in the order of `urls`; waits for it.

        A block that is damaged is discarded and downloaded again.
        """
        if not urls:
            return
        directory = self.place(urls)
        self._wait(directory)
        try:
            block = Block(directory)
        except (OSError, ValueError, KeyError, tarfile.TarError):
            shutil.rmtree(directory)
            self.request(urls)
            self._wait(directory)
            block = Block(directory)
        with block:
            for row, url in enumerate(urls):
                yield block.read(row, url)

    def _send(self, message: dict[str, Any]) -> None:
        if self._process is None:
            self._process = self._start()
        self._write(message)

    def _start(self) -> subprocess.Popen[str]:
        """The downloading process, with its settings sent."""
        self._log = (self.folder / LOG).open("a", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "curate.fetch.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            env={**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": _python_path()},
        )
        limits = asdict(self.limits)
        networks = limits.pop("allow_networks")
        self._write(
            {
                "limits": limits,
                "allow_networks": networks,
                "threads": self.threads,
                "retries": self.retries,
            }
        )
        return self._process

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _wait(self, directory: Path) -> None:
        """Until the block is finished. Raises SourceError when the downloading process gives up."""
        while not directory.is_dir():
            assert self._process is not None
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
            if not line:
                raise self._ended()
            reply = json.loads(line)
            if "failed" in reply:
                if "errno" in reply:
                    raise OSError(reply["errno"], reply["error"], str(directory))
                raise SourceError(
                    f"downloading failed: {reply['error']}",
                    hint=f"see {self.folder / LOG}; finished downloads are kept",
                )

    def _ended(self) -> SourceError:
        """The error for a downloading process that is no more."""
        lines = (self.folder / LOG).read_text("utf-8", "replace").strip().splitlines()
        return SourceError(
            f"the downloading process ended early: {lines[-1][:300] if lines else 'no message'}",
            hint=f"see {self.folder / LOG}; run the same command again to continue",
        )


class Block:
    """One finished block of downloads: img2dataset's tar and parquet.

    Raises OSError, ValueError, KeyError or tarfile.TarError when it is not whole.
    """

    def __init__(self, directory: Path) -> None:
        import pyarrow.parquet as pq

        columns = ["row", "key", "status", "error_message", "sha256"]
        table = pq.read_table(directory / "00000.parquet", columns=columns)
        self.rows = {int(row["row"]): row for row in table.to_pylist()}
        self.final_urls = json.loads((directory / FINAL_URLS).read_text("utf-8"))
        self.path = directory / "00000.tar"
        self._tar = tarfile.open(self.path, "r:")  # noqa: SIM115 (closed by the context)
        try:
            self.members = self._index()
        except BaseException:
            self._tar.close()
            raise

    def _index(self) -> dict[int, tarfile.TarInfo]:
        """The tar member of each row that was downloaded."""
        members = {member.name: member for member in self._tar.getmembers()}
        size, found = self.path.stat().st_size, {}
        for row, entry in self.rows.items():
            if entry["status"] == "success":
                found[row] = members[f"{entry['key']}.jpg"]
                if found[row].offset_data + found[row].size > size:
                    raise tarfile.ReadError(f"{self.path} is cut off")
        return found

    def __enter__(self) -> Block:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def read(self, row: int, url: str) -> Download:
        """What came of the URL in this row."""
        entry, final = self.rows.get(row), self.final_urls.get(url)
        if entry is None:
            return Download(b"", "download-failed")
        if row not in self.members:
            return Download(b"", reason_of(entry["error_message"]), final)
        file = self._tar.extractfile(self.members[row])
        data = file.read() if file is not None else b""
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise SourceError(
                f"{self.path}: the bytes of {url} changed since they were downloaded",
                hint=f"delete {self.path.parent} and run the same command again",
            )
        return Download(data, None, final)


def _python_path() -> str:
    """The module search path of this process, so that the child finds the same packages."""
    return os.pathsep.join(entry for entry in sys.path if entry)
