"""Hashing a file while it is written; long files are hashed and written by threads."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

CHUNK_BYTES = 1 << 20  # of one task for a thread, which takes the interpreter lock once a chunk
CHUNKS_AHEAD = 4  # queued for each thread, which bounds the memory


class HashedWriter:
    """Writes to a stream and hashes the bytes: SHA-256 always, MD5 if a wids index needs it.

    A short file is hashed and written when it is finished. For a longer one a thread hashes and writes each
    chunk while the next is produced; MD5, which is slower, runs in a second thread.
    """

    def __init__(self, stream: IO[bytes], *, md5: bool = False) -> None:
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None
        self._stream = stream
        self._parts: list[bytes | memoryview] = []
        self._size = 0
        self._sinks: list[Callable[[bytes], Any]] = [self._store]
        if self._md5 is not None:
            self._sinks.append(self._md5.update)
        self._threads: list[ThreadPoolExecutor] = []
        self._waiting: deque[Future[Any]] = deque()

    def write(self, parts: Sequence[bytes | memoryview], size: int) -> None:
        """Append `size` bytes. Raises the OSError of this or of an earlier write."""
        self._parts += parts
        self._size += size
        if self._size >= CHUNK_BYTES:
            self._hand_over()

    def finish(self) -> tuple[str, str | None]:
        """Wait until everything is written and return SHA-256 and MD5 in hex. Raises OSError."""
        data = b"".join(self._parts)
        while self._waiting:
            self._waiting.popleft().result()
        self.close()
        for sink in self._sinks:
            sink(data)
        md5 = self._md5.hexdigest() if self._md5 is not None else None
        return self._sha256.hexdigest(), md5

    def close(self) -> None:
        """Stop the threads; bytes they have not received are not written."""
        for thread in self._threads:
            thread.shutdown(wait=True, cancel_futures=True)

    def _store(self, data: bytes) -> None:
        self._sha256.update(data)
        self._stream.write(data)

    def _store_early(self, data: bytes) -> None:
        """Store a chunk and start its write to disk, so that the final sync has little left to do."""
        self._store(data)
        if hasattr(os, "posix_fadvise"):
            self._stream.flush()
            start = self._stream.tell() - len(data)
            os.posix_fadvise(self._stream.fileno(), start, len(data), os.POSIX_FADV_DONTNEED)

    def _hand_over(self) -> None:
        """Hand a chunk to each thread; wait for the oldest chunks if too many are queued."""
        data = b"".join(self._parts)
        self._parts, self._size = [], 0
        if not self._threads:
            self._threads = [ThreadPoolExecutor(1) for _ in self._sinks]
            self._sinks[0] = self._store_early
        for sink, thread in zip(self._sinks, self._threads, strict=True):
            self._waiting.append(thread.submit(sink, data))
        while len(self._waiting) > CHUNKS_AHEAD * len(self._sinks):
            self._waiting.popleft().result()
