"""A model hub on loopback for tests: its API, its files, and whatever goes wrong on the way."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_id(data: bytes) -> str:
    """The id that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class FakeHub(ThreadingHTTPServer):
    """`files` by path (`org/repo/NAME` on the hub, anything else as plain URLs), and `faults`.

    `faults[path]` are what the next requests for a path meet, first to last: a status ("500"),
    "cut N" (the connection ends after N bytes), "stall N" (N bytes, the rest when `go_on` is set),
    "whole" (no ranges), "more" (announced longer than stated), "endless" (longer, without saying
    so), "to URL" (a redirect).
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.small: set[str] = set()  # kept by git itself, so that the hub has no sha256 of them
        self.stated: dict[str, dict[str, object]] = {}  # what the API says, where that is wrong
        self.faults: dict[str, list[str]] = {}
        self.commit = COMMIT
        self.go_on = threading.Event()
        self.seen: list[tuple[str, str | None, str | None]] = []  # path, range, authorization
        self.sent: dict[str, int] = {}  # bytes of bodies by path

    def asked(self, path: str) -> list[str | None]:
        """The ranges asked for of a path, in order."""
        return [ranged for name, ranged, _ in self.seen if name == path]

    def siblings(self, repo: str) -> list[dict[str, object]]:
        entries = []
        for path, data in sorted(self.files.items()):
            if not path.startswith(f"{repo}/"):
                continue
            entry: dict[str, object] = {"rfilename": path.removeprefix(f"{repo}/")}
            entry |= {"size": len(data), "blobId": git_id(data)}
            if path not in self.small:
                sha256 = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 135}
            entries.append(entry | self.stated.get(path, {}))
        return entries


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def do_GET(self) -> None:
        """Answer as the hub, or as the next fault of this path says."""
        hub, path = self.server, unquote(urlsplit(self.path).path).strip("/")
        if path.startswith("api/models/"):
            repo, _, revision = path.removeprefix("api/models/").partition("/revision/")
            name = path
            answer = {"sha": hub.commit, "siblings": hub.siblings(repo)}
            data: bytes | None = json.dumps(answer).encode()
            if revision not in ("main", hub.commit) or not answer["siblings"]:
                data = None
        else:
            name = path.replace(f"/resolve/{hub.commit}/", "/")
            data = hub.files.get(name)
        hub.seen.append((name, self.headers["Range"], self.headers["Authorization"]))
        fault = hub.faults[name].pop(0) if hub.faults.get(name) else ""
        with suppress(OSError):  # the client may leave
            self.answer(name, data, *fault.partition(" ")[::2])

    def answer(self, name: str, data: bytes | None, fault: str, detail: str) -> None:
        if fault == "to":
            return self.head(302, 0, Location=detail)
        if data is None or fault.isdecimal():
            return self.head(int(fault) if fault else 404, 0, Retry_After=detail or "0")
        if fault == "endless":
            self.head(200, None)
            while True:
                self.body(name, data)
        start = int((self.headers["Range"] or "bytes=0-")[6:].rstrip("-"))
        if fault == "more":
            data += b"x"
        if start and fault != "whole":
            last = len(data) - 1
            self.head(206, len(data) - start, Content_Range=f"bytes {start}-{last}/{last + 1}")
            data = data[start:]
        else:
            self.head(200, len(data))
        first = data[: int(detail)] if fault in ("cut", "stall") else data
        self.body(name, first)
        if fault == "stall":
            self.server.go_on.wait(60)
            self.body(name, data[len(first) :])
        if fault == "cut":
            self.close_connection = True
        return None

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        if length is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def body(self, name: str, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()
        self.server.sent[name] = self.server.sent.get(name, 0) + len(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that listens while the block runs."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        hub.shutdown()
        hub.server_close()
        thread.join()
