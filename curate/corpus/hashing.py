"""Bytes on their way into a file, hashed in the same pass; of long files by threads of their own."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

CHUNK_BYTES = 1 << 20  # handed over at once: threads ask for the interpreter once a chunk
CHUNKS_AHEAD = 4  # that wait for them, so that memory is bounded


class HashedWriter:
    """Writes to a stream and hashes: SHA-256 always, MD5 where a wids index will ask for it.

    A short file is hashed and written when it is finished. Of a longer one a thread hashes and writes
    a chunk while the next is made; MD5, which is slower, has another.
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
        """Append bytes, `size` of them. Raises OSError of these or of earlier ones."""
        self._parts += parts
        self._size += size
        if self._size >= CHUNK_BYTES:
            self._hand_over()

    def finish(self) -> tuple[str, str | None]:
        """Wait until all is written; SHA-256 and MD5 in hex. Raises OSError."""
        rest = b"".join(self._parts)
        while self._waiting:
            self._waiting.popleft().result()
        self.close()
        for sink in self._sinks:
            sink(rest)
        md5 = self._md5.hexdigest() if self._md5 is not None else None
        return self._sha256.hexdigest(), md5

    def close(self) -> None:
        """End the threads; what they were not given yet is left."""
        for thread in self._threads:
            thread.shutdown(wait=True, cancel_futures=True)

    def _store(self, data: bytes) -> None:
        self._sha256.update(data)
        self._stream.write(data)

    def _store_early(self, data: bytes) -> None:
        """Store a chunk and let the disk begin with it, so that the sync at the end waits for little."""
        self._store(data)
        if hasattr(os, "posix_fadvise"):
            self._stream.flush()
            start = self._stream.tell() - len(data)
            os.posix_fadvise(self._stream.fileno(), start, len(data), os.POSIX_FADV_DONTNEED)

    def _hand_over(self) -> None:
        """Give a chunk to each thread; wait for the oldest ones when too many wait."""
        data = b"".join(self._parts)
        self._parts, self._size = [], 0
        if not self._threads:
            self._threads = [ThreadPoolExecutor(1) for _ in self._sinks]
            self._sinks[0] = self._store_early
        for sink, thread in zip(self._sinks, self._threads, strict=True):
            self._waiting.append(thread.submit(sink, data))
        while len(self._waiting) > CHUNKS_AHEAD * len(self._sinks):
            self._waiting.popleft().result()
