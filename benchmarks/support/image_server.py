"""A server of JPEGs on loopback in a process of its own: what both sides of a fetch benchmark ask.

python benchmarks/support/image_server.py NUM_IMAGES        prints its port, serves until stdin ends
"""

from __future__ import annotations

import asyncio
import io
import sys
import time

import numpy as np
from PIL import Image, ImageFilter

_first_asked: float | None = None
WIDTH, HEIGHT, QUALITY = 640, 480, 85


def pictures(count: int) -> list[bytes]:
    """`count` JPEGs of 640x480, some 100 kB each: smooth shapes with grain, as a photo has."""
    images = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        smooth = small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        smooth = smooth.filter(ImageFilter.GaussianBlur(2))
        grain = rng.integers(-14, 15, (HEIGHT, WIDTH, 3))
        pixels = np.clip(np.asarray(smooth, dtype=np.int16) + grain, 0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY)
        images.append(out.getvalue())
    return images


class Server(asyncio.Protocol):
    """HTTP/1.1 with kept connections, as any web server has; `/N` is picture N modulo their number."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers, self._asked = answers, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._asked += data
        while b"\r\n\r\n" in self._asked:
            head, _, self._asked = self._asked.partition(b"\r\n\r\n")
            name = head.split(b" ", 2)[1].strip(b"/").partition(b".")[0]
            assert isinstance(self._transport, asyncio.Transport)
            self._transport.write(self.answer(name))
            if b"connection: close" in head.lower():
                self._transport.close()

    def answer(self, name: bytes) -> bytes:
        """A picture; for `first` the clock's reading when one was first asked for since the last time."""
        global _first_asked
        if name == b"first":
            body, _first_asked = f"{_first_asked}".encode(), None
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        if _first_asked is None:
            _first_asked = time.monotonic()
        return self._answers[int(name) % len(self._answers)]


async def serve(images: list[bytes]) -> None:
    """Serve until stdin ends."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    answers = [head.format(len(image)).encode() + image for image in images]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(answers), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(pictures(int(sys.argv[1]))))
