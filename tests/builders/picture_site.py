"""A loopback server of ten pictures whose answers a test decides, and lists of its URLs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from PIL import Image

from stylear.curate.fetch.loopback import FileHandler


class Site:
    """Ten pictures; `failing` maps a path to the status it has now, `asked` has every request."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        for n in range(10):
            Image.new("RGB", (24, 24), (n * 20, 30, 99)).save(folder / f"{n}.png")
        self.asked: list[str] = []
        self.failing: dict[str, int] = {}
        site = self

        class Handler(FileHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                status = site.failing.get(self.path)
                self.send_error(status) if status else super().do_GET()

        Handler.folder = folder
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def running(root: Path) -> Iterator[Site]:
    """The site, served while the block runs."""
    site = Site(root / "site")
    thread = Thread(target=site.server.serve_forever, args=(0.02,))
    thread.start()
    yield site
    site.server.shutdown()
    site.server.server_close()
    thread.join()


def write_list(
    root: Path, site: Site, numbers: Iterable[int], further: Iterable[tuple[str, str]] = ()
) -> None:
    """`root/list.csv` with the URLs and captions of some pictures, and further rows."""
    rows = [(f"{site.base}/{n}.png", f"thing number {n}") for n in numbers]
    with (root / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("url", "caption"), *rows, *further])
