"""A server on loopback that does what a stranger's server may do, for tests."""

from __future__ import annotations

import gzip
import random
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PICTURE = (  # a GIF of one pixel
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff"
    b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A grey PNG whose header declares its size, around whatever compressed data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = data or zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """30000x30000 pixels in 0.9 MB: a block of ten million zeros, compressed once, ninety times."""
    packer = zlib.compressobj(9)
    block = packer.compress(bytes(10_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    start, block = block[:2], block[2:]
    return png(30_000, 30_000, start + block * 91)


class Hostile(BaseHTTPRequestHandler):
    """`/<what>/<rest>`: see `do_GET`. HTTP/1.1, so connections are kept."""

    protocol_version = "HTTP/1.1"
    timeout = 10
    seen: list[str]  # paths asked for
    agents: list[str]  # user agents
    times: dict[str, int]  # how often each path was asked for

    def do_GET(self) -> None:
        """Misbehave."""
        self.seen.append(self.path)
        self.agents.append(self.headers["User-Agent"])
        self.times[self.path] = self.times.get(self.path, 0) + 1
        what, _, argument = self.path[1:].partition("/")
        with suppress(OSError):  # the client may leave
            getattr(self, f"send_{what}", self.send_ok)(argument)

    def answer(
        self, body: bytes, status: int = 200, length: int | None = None, **headers: str
    ) -> None:
        """One answer; underscores of header names become dashes. `length`: what is declared."""
        self.send_response(status)
        for name, value in headers.items():
            for one in value.split("\n"):
                self.send_header(name.replace("_", "-"), one)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        if length is not None:
            self.close_connection = True

    def forever(self, first: bytes, then: bytes, pause_s: float) -> None:
        """A body without an end."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(first)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            self.wfile.write(then)
            time.sleep(pause_s)

    def send_ok(self, argument: str) -> None:
        self.answer(PICTURE, Content_Type="image/gif")

    def send_to(self, argument: str) -> None:
        self.answer(b"moved", 302, Location=argument)

    def send_hops(self, argument: str) -> None:
        left = int(argument)
        self.answer(b"", 302, Location=f"/hops/{left - 1}") if left else self.send_ok(argument)

    def send_endlessmove(self, argument: str) -> None:
        """A redirect whose own body never ends."""
        self.send_response(302)
        self.send_header("Location", "/ok")
        self.end_headers()
        self.close_connection = True
        until = time.monotonic() + 20
        while time.monotonic() < until:
            self.wfile.write(bytes(100_000))

    def send_endless(self, argument: str) -> None:
        self.forever(PICTURE, bytes(1000), 0)

    def send_drip(self, argument: str) -> None:
        self.forever(PICTURE, b"x", 0.05)

    def send_driphead(self, argument: str) -> None:
        """A status line, then headers without an end, slowly."""
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        until = time.monotonic() + 20
        while time.monotonic() < until:
            self.wfile.write(b"x")
            time.sleep(0.05)

    def send_short(self, argument: str) -> None:
        self.answer(PICTURE, length=100)

    def send_long(self, argument: str) -> None:
        """More bytes than declared; what is declared ends inside the picture."""
        pixels = zlib.compress(random.Random(0).randbytes(40 * 41))
        self.answer(png(40, 40, pixels), length=900)

    def send_large(self, argument: str) -> None:
        self.answer(PICTURE, length=999_999_999)

    def send_html(self, argument: str) -> None:
        self.answer(b"<!doctype html><title>not found</title>" * 9, Content_Type="image/jpeg")

    def send_gzip(self, argument: str) -> None:
        """20 MB of zeros in 20 kB."""
        body = gzip.compress(PICTURE + bytes(20_000_000), 9)
        self.answer(body, Content_Encoding="gzip", Content_Type="image/gif")

    def send_bomb(self, argument: str) -> None:
        self.answer(bomb(), Content_Type="image/png")

    def send_empty(self, argument: str) -> None:
        self.answer(b"")

    def send_garbage(self, argument: str) -> None:
        self.close_connection = True
        self.wfile.write(b"220 welcome to smtp\r\n\r\n")

    def send_status(self, argument: str) -> None:
        self.answer(b"no", int(argument))

    def send_tag(self, argument: str) -> None:
        """`/tag/<value>`: an X-Robots-Tag; `|` separates headers."""
        from urllib.parse import unquote

        self.answer(PICTURE, X_Robots_Tag=unquote(argument).replace("|", "\n"))

    def send_tdm(self, argument: str) -> None:
        self.answer(PICTURE, TDM_Reservation=argument)

    def send_later(self, argument: str) -> None:
        """`/later/<seconds>`: 429 at first, then the picture."""
        if self.times[self.path] == 1:
            self.answer(b"", 429, Retry_After=argument)
        else:
            self.send_ok(argument)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients leave; that is what they are tested for."""


@contextmanager
def hostile_server() -> Iterator[tuple[str, type[Hostile]]]:
    """(base URL, the handler with what was asked)."""
    handler = type("Handler", (Hostile,), {"seen": [], "agents": [], "times": {}})
    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
