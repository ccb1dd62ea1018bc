"""A small image server on loopback, from which tests and the demo download without a network."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stylear.errors import SourceError

ADDRESS = "127.0.0.1"
NETWORK = "127.0.0.0/8"  # what a recipe must allow to download from this server
TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
}


@contextmanager
def serve(directory: Path | str, port: int = 0) -> Iterator[str]:
    """Serve the files of `directory` inside the context; yields the base URL, without a final slash.

    Port 0 takes any free one. Give a fixed port where the URLs must be the same in every run: they
    are part of the keys. Raises SourceError when the directory is missing or the port is taken.
    """
    root = Path(directory).resolve()
    if not root.is_dir():
        raise SourceError(f"{directory}: expected a folder to serve, found nothing")

    class Handler(FileHandler):
        folder = root

    try:
        server = ThreadingHTTPServer((ADDRESS, port), Handler)
    except OSError as error:
        raise SourceError(
            f"port {port} on {ADDRESS} cannot be used: {error.strerror}", hint="choose another port"
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://{ADDRESS}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class FileHandler(BaseHTTPRequestHandler):
    """Answers GET with a regular file inside `folder`, or 404. No listings, no log."""

    folder: Path
    timeout = 10

    def do_GET(self) -> None:
        """Send one file."""
        name = unquote(urlsplit(self.path).path).lstrip("/")
        try:
            path = (self.folder / name).resolve()
            inside = path.is_relative_to(self.folder) and path.is_file()
        except (OSError, ValueError):
            inside = False
        if not inside:
            self.send_error(404)
            return
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", TYPES.get(path.suffix.lower(), "application/octet-stream"))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the terminal belongs to the command that downloads."""
