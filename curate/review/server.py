"""The review server: one page on loopback, for whoever knows its token.

A page of another site can reach neither pictures nor answers: every path begins with a random token, the Host
header must be the server's own (no DNS rebinding), and a POST must come from the page itself (Origin) as
JSON. The page gets texts as JSON and writes them as text, and its policy allows no other script.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from secrets import compare_digest, token_urlsafe
from typing import Any

from stylear.curate.corpus.records import image_extension
from stylear.curate.review.session import Session
from stylear.curate.review.tasks import Material
from stylear.errors import StylearError, UsageError

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
MAX_BODY_BYTES = 4096
IMAGE_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
PAGE = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # not no-referrer, with which a browser sends no Origin
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@contextmanager
def serve_review(session: Session, material: Material, port: int = 0) -> Iterator[str]:
    """Serve the page inside the context; yields its URL. Port 0 takes any free one.

    Raises UsageError if the port is taken.
    """

    class Handler(ReviewHandler):
        pass

    Handler.session, Handler.material, Handler.token = session, material, token_urlsafe(24)
    try:
        server = ThreadingHTTPServer((ADDRESS, port), Handler)
    except OSError as error:
        raise UsageError(
            f"--port {port}: cannot be used on {ADDRESS}: {error.strerror}",
            hint="choose another port, or leave it out for any free one",
        ) from error
    Handler.port = server.server_address[1]
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://{ADDRESS}:{Handler.port}/{Handler.token}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class ReviewHandler(BaseHTTPRequestHandler):
    """Answers the page's requests. No log: the terminal belongs to the command."""

    session: Session
    material: Material
    token: str
    port: int
    timeout = 10
    server_version = "stylear"
    sys_version = ""

    def do_GET(self) -> None:
        """The page, the state, or a picture: `picture/TASK/0`, `picture/TASK/1`, `reference/TASK`."""
        path = self._authorized_path()
        if path is None:
            return
        if path in PAGE:
            name, content_type = PAGE[path]
            data = files("stylear.curate.review").joinpath("page", name).read_bytes()
            self._send(200, data, content_type)
        elif path == "state":
            self._send_json(200, self.session.state())
        else:
            self._send_picture(path)

    def do_POST(self) -> None:
        """`answer` with {"task", "answer"}, or `undo`; the reply is the new state."""
        path = self._authorized_path()
        if path is None:
            return
        if self.headers.get("Origin") not in self._origins():
            self._refuse(403, "expected a request of the review page itself")
            return
        if self.headers.get_content_type() != "application/json":
            self._refuse(415, "expected application/json")
            return
        body = self._read_body()
        if body is None:
            self._refuse(400, "expected a small JSON object")
        elif path == "undo":
            self.session.undo()
            self._send_json(200, self.session.state())
        elif path == "answer":
            outcome = self.session.answer(str(body.get("task")), str(body.get("answer")))
            status = {"saved": 200, "answered": 409, "unknown": 400}[outcome]
            self._send_json(status, self.session.state())
        else:
            self._refuse(404, "not found")

    def _authorized_path(self) -> str | None:
        """The path behind the token; None if the request was refused."""
        hosts = {origin.removeprefix("http://") for origin in self._origins()}
        if self.headers.get("Host") not in hosts:
            self._refuse(421, "expected the Host of this server")
            return None
        token, slash, path = self.path.removeprefix("/").partition("/")
        if not slash or not compare_digest(token.encode(), self.token.encode()):
            self._refuse(404, "not found")
            return None
        return path.partition("?")[0]

    def _origins(self) -> set[str]:
        """The server's own origins."""
        return {f"http://{name}:{self.port}" for name in NAMES}

    def _read_body(self) -> dict[str, Any] | None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= MAX_BODY_BYTES):
            return None
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return None
        return body if isinstance(body, dict) else None

    def _send_picture(self, path: str) -> None:
        kind, _, target = path.partition("/")
        name, _, side = target.partition("/")
        task = self.session.tasks.get(name)
        image: bytes | None = None
        try:
            if task is not None and kind == "picture" and side in ("0", "1")[: len(task.sides)]:
                image = self.material.read_picture(task.sides[int(side)])
            elif task is not None and kind == "reference" and task.reference is not None:
                image = self.material.read_reference(task.reference)
        except (StylearError, OSError) as error:
            self._refuse(500, str(error))
            return
        extension = None if image is None else image_extension(image)
        if image is None or extension is None:
            self._refuse(404, "not found")
            return
        self._send(200, image, IMAGE_TYPES[extension])

    def _refuse(self, status: int, reason: str) -> None:
        self.close_connection = True
        self._send(status, reason.encode(), "text/plain; charset=utf-8")

    def _send_json(self, status: int, value: Any) -> None:
        data = json.dumps(value, ensure_ascii=True).encode()
        self._send(status, data, "application/json")

    def _send(self, status: int, data: bytes, content_type: str) -> None:
        with suppress(ConnectionError, TimeoutError):  # the page was closed or went on meanwhile
            self.send_response(status)
            for name, value in {**HEADERS, "Content-Type": content_type}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
