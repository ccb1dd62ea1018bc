"""Download: one file of a model into its place; resumed, bounded, hashed, and only then named.

The bytes gather in a hidden `.part` file beside the place. Its name holds what is expected, so
that a part of another version is never gone on with.
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
from stylear.weights.http import TOKEN_HINT, Passing, open_url, persist

CHUNK_BYTES = 2**20
CHANGED = "the source has changed; it is no longer what is registered"


@dataclass(frozen=True, slots=True)
class Remote:
    """A file at its source, and what is known of it beforehand."""

    url: str
    bytes: int
    sha256: str = ""  # "": unknown
    git_sha1: str = ""  # the id that git gives the file; the hub has it for small files
    hint: str = TOKEN_HINT  # what to do when the server refuses

    @property
    def known(self) -> bool:
        return bool(self.sha256 or self.git_sha1)


class Digest:
    """The hashes of what has arrived, and how much it is."""

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

    def problem(self, remote: Remote) -> str | None:
        """How it differs from what is expected; None when it does not."""
        if self.count != remote.bytes:
            return f"expected {remote.bytes} bytes, found {self.count}"
        if remote.sha256 and self.sha256 != remote.sha256:
            return f"expected sha256 {remote.sha256}, found {self.sha256}"
        if remote.git_sha1 and self._git.hexdigest() != remote.git_sha1:
            return f"expected git id {remote.git_sha1}, found {self._git.hexdigest()}"
        return None


def digest_of(path: Path, remote: Remote) -> Digest:
    """The digest of a file that is there."""
    digest = Digest(remote.bytes)
    with path.open("rb") as stream:
        _take_in(stream, digest)
    return digest


def part_of(remote: Remote, target: Path) -> Path:
    """Where the bytes of a file gather until they are whole."""
    identity = f"{remote.bytes} {remote.sha256 or remote.git_sha1 or remote.url}"
    return target.with_name(
        f".{target.name}.{hashlib.sha256(identity.encode()).hexdigest()[:12]}.part"
    )


def arrived(remote: Remote, target: Path) -> int:
    """How many bytes of a file lie in its part from an earlier attempt."""
    part = part_of(remote, target)
    return min(part.stat().st_size, remote.bytes) if remote.known and part.is_file() else 0


def download(
    remote: Remote,
    target: Path,
    *,
    accept: Callable[[Path], None],
    on_bytes: Callable[[int], None] = lambda count: None,
) -> str:
    """Bring a file to `target`; returns its sha256.

    Goes on where an earlier attempt ended; `on_bytes` hears how many bytes were added (fewer than
    none when the server starts over). `accept` looks at the whole file before it gets its name,
    and raises to refuse it. Raises WeightsError; what has arrived is kept unless it is wrong.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(remote, target)
    resumed = arrived(remote, target)
    digest = Digest(remote.bytes)
    with part.open("r+b" if resumed else "w+b") as stream:
        _take_in(stream, digest, at_most=remote.bytes)
        _receive_all(remote, stream, digest, on_bytes)
        if resumed and digest.problem(remote):  # the part itself may be what is damaged
            _start_over(stream, digest, on_bytes)
            _receive_all(remote, stream, digest, on_bytes)
        os.fsync(stream.fileno())
    problem = digest.problem(remote)
    try:
        if problem:
            raise WeightsError(
                f"{remote.url}: {problem}",
                hint="the source has changed or the transfer was damaged; nothing was kept",
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
        persist(lambda: _receive(remote, stream, digest, on_bytes), lambda: digest.count)


def _receive(
    remote: Remote, stream: IO[bytes], digest: Digest, on_bytes: Callable[[int], None]
) -> None:
    """One request, from where the digest stands to the end of what the server gives."""
    with open_url(remote.url, first=digest.count, hint=remote.hint) as response:
        if digest.count and response.status != 206:  # a server that cannot go on sends it all
            _start_over(stream, digest, on_bytes)
        elif digest.count:
            given = response.headers.get("Content-Range", "")
            if not given.startswith(f"bytes {digest.count}-"):
                raise WeightsError(
                    f"{remote.url}: expected the bytes from {digest.count} on, found {given!r}"
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
        raise Passing(f"{remote.url}: cut off after {digest.count} of {remote.bytes} bytes")


def _start_over(stream: IO[bytes], digest: Digest, on_bytes: Callable[[int], None]) -> None:
    on_bytes(-digest.count)
    stream.seek(0)
    stream.truncate()
    digest.restart()


def _read(response: Any, remote: Remote) -> bytes:
    try:
        chunk: bytes = response.read1(CHUNK_BYTES)
    except (http.client.HTTPException, OSError) as error:
        raise Passing(f"{remote.url}: {error or type(error).__name__}") from error
    return chunk


def _take_in(stream: IO[bytes], digest: Digest, at_most: int | None = None) -> None:
    while chunk := stream.read(
        CHUNK_BYTES if at_most is None else min(CHUNK_BYTES, at_most - digest.count)
    ):
        digest.update(chunk)
