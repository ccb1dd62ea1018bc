"""A real S3 API on loopback (moto's server, a process of its own) behind a proxy that injects faults."""

from __future__ import annotations

import http.client
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

MOTO = Path(sys.prefix) / "moto" / "bin" / "python"
SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # until the tests end, however they end
"""
BUCKET = "corpora"
SECRET = "wJalrXUtnFEMI/K7MDENG/not-a-real-key"
LIMIT = 64 << 10  # bytes of a slow or cut-off body that are sent first


class Proxy(ThreadingHTTPServer):
    """Hands requests on; a seeded share of them meets a fault. `seen` counts both."""

    daemon_threads = True

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream
        self.guard = threading.Lock()
        self.reset()

    def reset(self, share: float = 0.0, seed: int = 0, only: str | None = None) -> None:
        """From now on this share of requests meets a fault (`only` this one), drawn with the seed."""
        with self.guard:
            self.share, self.only, self.draw = share, only, random.Random(seed)
            self.seen: Counter[str] = Counter()

    def fault(self, method: str, path: str) -> str | None:
        """What happens to the next request."""
        with self.guard:
            self.seen[method] += 1
            self.seen[f"{method} {path.partition('?')[0]}"] += 1
            if self.draw.random() >= self.share:
                return None
            fault = self.only or self.draw.choice(["500", "503", "slow", "cut", "dropped"])
            self.seen[fault] += 1
            return fault

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for an acknowledgement
    server: Proxy

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests print no requests."""

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that was killed
            super().handle()

    def go(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault(self.command, self.path)
        if fault in ("500", "503"):
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers.items()))
            reply = upstream.getresponse()
            data = reply.read()
        finally:
            upstream.close()
        if fault == "dropped":  # the store did it, and nobody is told
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(reply.status)
        kept = {"transfer-encoding", "connection", "date", "server", "content-length"}
        for name, value in reply.getheaders():
            if name.lower() not in kept:
                self.send_header(name, value)
        length = reply.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if fault == "slow":
            half = min(len(data) // 2, LIMIT)
            self.wfile.write(data[:half])
            self.wfile.flush()
            time.sleep(0.05)
            data = data[half:]
        elif fault == "cut":
            self.wfile.write(data[: min(len(data) // 2, LIMIT)])
            self.close_connection = True
            return
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = go


@contextmanager
def faulty_store() -> Iterator[Proxy]:
    """The proxy, its server and an empty bucket; the environment of this process points at it."""
    if not MOTO.is_file():
        reason = f"{MOTO}: no S3 server; `make test` installs it from tests/moto.txt"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    server = subprocess.Popen(
        [str(MOTO), "-c", SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": SECRET},
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        proxy = Proxy(int(server.stdout.readline()))
        with proxy, pytest.MonkeyPatch.context() as patch:
            thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
            thread.start()
            patch.setenv("AWS_ENDPOINT_URL", proxy.url)
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
            patch.setenv("AWS_REGION", "us-east-1")
            bucket = http.client.HTTPConnection("127.0.0.1", proxy.upstream)
            bucket.request("PUT", f"/{BUCKET}")
            assert bucket.getresponse().status == 200
            bucket.close()
            try:
                yield proxy
            finally:
                proxy.shutdown()
                thread.join()
    finally:
        server.stdin.close()
        server.stdout.close()
        server.wait()
