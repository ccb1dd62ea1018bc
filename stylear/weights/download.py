"""Download one file of a model: resumable, bounded in size, renamed into place once its hash matches.

Bytes are written to a hidden `.part` file beside the target. The expected hash is part of its name, so a
partial file of another version is never resumed.
"""

from __future__ import annotations

import hashlib
import http.client
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stylear.errors import WeightsError
from stylear.weights.http import TOKEN_HINT, TransientError, open_url, retry_transient

CHUNK_BYTES = 2**20
CHANGED = "the source has changed; it is no longer what is registered"


@dataclass(frozen=True, slots=True)
class Remote:
    """A remote file and what is known about it before the download."""

    url: str
    bytes: int
    sha256: str = ""  # "": unknown
    git_sha1: str = ""  # git's blob id; the hub states it for small files
    hint: str = TOKEN_HINT  # shown if the server refuses

    @property
    def has_hash(self) -> bool:
        """Whether any hash of the file is known."""
        return bool(self.sha256 or self.git_sha1)


class Digest:
    """Running hashes and the number of bytes received so far."""

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self.restart()

    def restart(self) -> None:
        self.count = 0
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % self._num_bytes, usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        self.count += len(chunk)
        self._sha256.update(chunk)
        self._git.update(chunk)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def find_mismatch(self, remote: Remote) -> str | None:
        """How the received bytes differ from what is expected; None if they match."""
        if self.count != remote.bytes:
            return f"expected {remote.bytes} bytes, found {self.count}"
        if remote.sha256 and self.sha256 != remote.sha256:
            return f"expected sha256 {remote.sha256}, found {self.sha256}"
        if remote.git_sha1 and self._git.hexdigest() != remote.git_sha1:
            return f"expected git id {remote.git_sha1}, found {self._git.hexdigest()}"
        return None


def hash_existing(path: Path, remote: Remote) -> Digest:
    """The digest of a file that exists already."""
    digest = Digest(remote.bytes)
    with path.open("rb") as stream:
        _hash_stream(stream, digest)
    return digest


def part_path(remote: Remote, target: Path) -> Path:
    """The partial file of a download, beside its target."""
    identity = f"{remote.bytes} {remote.sha256 or remote.git_sha1 or remote.url}"
    return target.with_name(
        f".{target.name}.{hashlib.sha256(identity.encode()).hexdigest()[:12]}.part"
    )


def count_partial_bytes(remote: Remote, target: Path) -> int:
    """The number of bytes that an earlier attempt left in the partial file."""
    part = part_path(remote, target)
    return min(part.stat().st_size, remote.bytes) if remote.has_hash and part.is_file() else 0


def download(
    remote: Remote,
    target: Path,
    *,
    accept: Callable[[Path], None],
    on_bytes: Callable[[int], None] = lambda count: None,
) -> str:
    """Download a file to `target`, resuming an earlier attempt; returns its sha256.

    `on_bytes` is called with the number of bytes received, negative if the server restarts the transfer.
    `accept` inspects the complete file before it is renamed, and raises to reject it. Raises WeightsError;
    received bytes are kept unless they are wrong.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(remote, target)
    resumed = count_partial_bytes(remote, target)
    digest = Digest(remote.bytes)
    with part.open("r+b" if resumed else "w+b") as stream:
        _hash_stream(stream, digest, at_most=remote.bytes)
        _receive_all(remote, stream, digest, on_bytes)
        if resumed and digest.find_mismatch(remote):  # the partial file itself may be damaged
            _start_over(stream, digest, on_bytes)
            _receive_all(remote, stream, digest, on_bytes)
        os.fsync(stream.fileno())
    problem = digest.find_mismatch(remote)
    try:
        if problem:
            raise WeightsError(
                f"{remote.url}: {problem}",
                hint="the source has changed or the transfer was corrupted; the download was discarded",
            )
        accept(part)
    except WeightsError:
        part.unlink()
        raise
    part.chmod(0o644)
    part.replace(target)
    for stale in target.parent.glob(f".{target.name}.*.part"):
        stale.unlink(missing_ok=True)
    return digest.sha256


def _receive_all(
    remote: Remote, stream: IO[bytes], digest: Digest, on_bytes: Callable[[int], None]
) -> None:
    if digest.count < remote.bytes:
        retry_transient(lambda: _receive(remote, stream, digest, on_bytes), lambda: digest.count)


def _receive(
    remote: Remote, stream: IO[bytes], digest: Digest, on_bytes: Callable[[int], None]
) -> None:
    """One request: receive from where the digest stands to the end of the response."""
    with open_url(remote.url, first=digest.count, hint=remote.hint) as response:
        if (
            digest.count and response.status != 206
        ):  # a server without range requests sends the whole file
            _start_over(stream, digest, on_bytes)
        elif digest.count:
            content_range = response.headers.get("Content-Range", "")
            if not content_range.startswith(f"bytes {digest.count}-"):
                raise WeightsError(
                    f"{remote.url}: expected the bytes from {digest.count} on, found {content_range!r}"
                )
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and digest.count + int(announced) != remote.bytes:
            raise WeightsError(
                f"{remote.url}: expected {remote.bytes} bytes, "
                f"found {digest.count + int(announced)} announced",
                hint=CHANGED,
            )
        stream.seek(digest.count)
        stream.truncate()
        while chunk := _read(response, remote):
            if digest.count + len(chunk) > remote.bytes:
                raise WeightsError(
                    f"{remote.url}: expected {remote.bytes} bytes, found more",
                    hint=CHANGED,
                )
            stream.write(chunk)
            digest.update(chunk)
            on_bytes(len(chunk))
    if digest.count < remote.bytes:
        raise TransientError(f"{remote.url}: cut off after {digest.count} of {remote.bytes} bytes")


def _start_over(stream: IO[bytes], digest: Digest, on_bytes: Callable[[int], None]) -> None:
    on_bytes(-digest.count)
    stream.seek(0)
    stream.truncate()
    digest.restart()


def _read(response: Any, remote: Remote) -> bytes:
    try:
        chunk: bytes = response.read1(CHUNK_BYTES)
    except (http.client.HTTPException, OSError) as error:
        raise TransientError(f"{remote.url}: {error or type(error).__name__}") from error
    return chunk


def _hash_stream(stream: IO[bytes], digest: Digest, at_most: int | None = None) -> None:
    while chunk := stream.read(
        CHUNK_BYTES if at_most is None else min(CHUNK_BYTES, at_most - digest.count)
    ):
        digest.update(chunk)
