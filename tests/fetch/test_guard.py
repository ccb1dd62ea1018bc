"""Claims about the guard: where a download may go, and what it may cost."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import HTTPError, URLError

import pytest
from builders.hostile_server import hostile_server

import stylear
from stylear.curate.fetch.guard import GuardedOpener, Limits
from stylear.curate.fetch.loopback import NETWORK, serve
from stylear.curate.fetch.refused import RequestRefused
from stylear.errors import SourceError

PICTURE = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;" + bytes(32)  # one pixel, as its header says


class Answers(BaseHTTPRequestHandler):
    """A server that misbehaves on request."""

    seen: list[tuple[str, str]]  # path, user agent

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["User-Agent"]))
        what, _, argument = self.path[1:].partition("/")
        if what == "to":  # /to/<target>
            self.send_response(302)
            self.send_header("Location", argument)
            self.end_headers()
        elif what == "hops":  # /hops/<n>
            left = int(argument)
            self.send_response(302 if left else 200)
            if left:
                self.send_header("Location", f"/hops/{left - 1}")
            self.send_header("Content-Length", "0" if left else str(len(PICTURE)))
            self.end_headers()
            self.wfile.write(b"" if left else PICTURE)
        elif what == "endless":
            self.send_response(200)
            self.end_headers()
            with self.quietly():
                self.wfile.write(PICTURE)
                while True:
                    self.wfile.write(bytes(1000))
        elif what == "drip":
            self.send_response(200)
            self.end_headers()
            with self.quietly():
                for _ in range(200):
                    self.wfile.write(b"x")
                    time.sleep(0.02)
        elif what == "short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(PICTURE)
        elif what == "large":
            self.send_response(200)
            self.send_header("Content-Length", "999999999")
            self.end_headers()
        elif what == "silent":
            time.sleep(0.6)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(PICTURE)))
            self.end_headers()
            self.wfile.write(PICTURE)

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """The client may leave."""
        try:
            yield
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(base URL, what was asked)."""
    seen: list[tuple[str, str]] = []
    handler = type("Handler", (Answers,), {"seen": seen})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}", seen
    http.shutdown()
    http.server_close()
    thread.join()


def opener(**limits: Any) -> GuardedOpener:
    return GuardedOpener(Limits(**{"allow_networks": (NETWORK,), "timeout_s": 5.0, **limits}))


def refusal(guard: GuardedOpener, url: str) -> str:
    """The name under which `url` is refused; the reason for other failures."""
    try:
        with guard.open(url) as response:
            return "opened" if response.read() == PICTURE else "opened something else"
    except RequestRefused as refused:
        return refused.name
    except URLError as error:
        return str(error.reason)


def test_loopback_is_refused_unless_allowed(server: tuple[str, list[tuple[str, str]]]) -> None:
    base, seen = server
    port = base.rpartition(":")[2]
    shut = GuardedOpener(Limits())
    names = (
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    )
    for host in names:
        assert refusal(shut, f"http://{host}:{port}/") == "not-public-address", host
    assert seen == []
    assert refusal(opener(), f"{base}/") == "opened"
    assert refusal(opener(), "http://10.1.2.3/") == "not-public-address"


def test_redirects_are_checked_like_urls(server: tuple[str, list[tuple[str, str]]]) -> None:
    base, seen = server
    guard = opener()
    for target, reason in (
        ("file:///etc/passwd", "not-http"),
        ("ftp://127.0.0.1/x", "not-http"),
        ("http://169.254.169.254/latest/meta-data", "not-public-address"),
        ("http://[::1]/", "not-public-address"),
        ("//10.0.0.1/", "not-public-address"),
    ):
        assert refusal(guard, f"{base}/to/{target}") == reason, target
    assert len(seen) == 5


def test_five_redirects_are_followed_and_no_more(server: tuple[str, list[tuple[str, str]]]) -> None:
    base, seen = server
    guard = opener()
    assert refusal(guard, f"{base}/hops/5") == "opened"
    assert guard.evidence[f"{base}/hops/5"].final_url == f"{base}/hops/0"
    assert len(seen) == 6
    assert refusal(guard, f"{base}/hops/6") == "too-many-redirects"


def test_the_user_agent_is_honest(server: tuple[str, list[tuple[str, str]]]) -> None:
    base, seen = server
    request = urllib.request.Request(f"{base}/", headers={"User-Agent": "Mozilla/5.0 (X11)"})
    opener(contact="https://example.org/bot").open(request).close()
    opener().open(f"{base}/to//").close()
    assert seen[0][1] == f"stylear/{stylear.__version__} (+https://example.org/bot)"
    assert {agent for _, agent in seen[1:]} == {f"stylear/{stylear.__version__}"}


def test_bytes_and_seconds_are_limited(server: tuple[str, list[tuple[str, str]]]) -> None:
    base, _ = server
    assert refusal(opener(max_bytes=10_000), f"{base}/endless") == "too-large"
    assert refusal(opener(max_bytes=10_000), f"{base}/large") == "too-large"
    assert refusal(opener(deadline_s=0.1), f"{base}/drip") == "timeout"
    assert refusal(opener(), f"{base}/short") == "cut-off"
    assert refusal(opener(timeout_s=0.1), f"{base}/silent") == "timeout"


def test_https_is_tried_behind_the_same_guard(server: tuple[str, list[tuple[str, str]]]) -> None:
    base, seen = server
    url = base.replace("http://", "https://")
    assert refusal(opener(timeout_s=0.5), url) == "tls-failed"
    assert refusal(GuardedOpener(Limits()), url) == "not-public-address"
    assert seen == []


def test_the_connection_goes_to_the_checked_address(
    server: tuple[str, list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that answers differently the second time is asked only once."""
    base, seen = server
    port = int(base.rpartition(":")[2])
    hosts = []

    def resolve(host: str, at: int, **_: object) -> list[Any]:
        hosts.append(host)
        address = "127.0.0.1" if len(hosts) == 1 else "10.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, at))]

    genuine = socket.getaddrinfo

    def getaddrinfo(host: str, at: int, *args: Any, **named: Any) -> Any:
        if host == "rebind.example":
            return resolve(host, at)
        return genuine(host, at, *args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert refusal(opener(), f"http://rebind.example:{port}/") == "opened"
    assert hosts == ["rebind.example"]
    assert refusal(opener(), f"http://rebind.example:{port}/") == "not-public-address"
    assert len(seen) == 1


def test_the_loopback_server_serves_its_folder_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a b.png").write_bytes(PICTURE)
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (tmp_path / "served" / "link").symlink_to(tmp_path / "secret.txt")
    guard = opener()
    with serve(tmp_path / "served") as base:
        with guard.open(f"{base}/a b.png") as response:
            assert response.read() == PICTURE
            assert response.headers["Content-Type"] == "image/png"
        for path in ("", "..%2Fsecret.txt", "../secret.txt", "link", "none.png", "%00"):
            with pytest.raises(HTTPError, match="404"):
                guard.open(f"{base}/{path}")
    with pytest.raises(SourceError, match="expected a folder to serve"), serve(tmp_path / "none"):
        pass


def test_a_taken_port_is_an_error_that_names_it(tmp_path: Path) -> None:
    with serve(tmp_path) as base:
        port = int(base.rpartition(":")[2])
        with pytest.raises(SourceError, match=f"port {port}"), serve(tmp_path, port):
            pass


def test_the_certificate_must_be_that_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to a checked address; the name in the certificate is still that of the URL."""
    tls = Path(__file__).parents[1] / "builders" / "tls"
    monkeypatch.setenv("SSL_CERT_FILE", str(tls / "authority.pem"))
    genuine = socket.getaddrinfo

    def getaddrinfo(host: str, at: int, *args: Any, **named: Any) -> Any:
        return genuine("127.0.0.1" if host.endswith(".example") else host, at, *args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    handler = type("Handler", (Answers,), {"seen": []})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.pem")
    http.socket = context.wrap_socket(http.socket, server_side=True)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    port = http.server_address[1]
    outcomes = [refusal(opener(), f"https://{host}.example:{port}/") for host in ("good", "other")]
    monkeypatch.delenv("SSL_CERT_FILE")
    outcomes.append(refusal(opener(), f"https://good.example:{port}/"))
    http.shutdown()
    http.server_close()
    thread.join()
    assert outcomes == ["opened", "tls-failed", "tls-failed"]


def test_connections_are_used_again_and_replaced_when_the_server_closed_them() -> None:
    ports: list[int] = []

    class Kept(Answers):
        protocol_version = "HTTP/1.1"
        seen: ClassVar[list[tuple[str, str]]] = []

        def do_GET(self) -> None:
            ports.append(self.client_address[1])
            super().do_GET()
            self.close_connection = self.path == "/last"  # without saying so

    http = ThreadingHTTPServer(("127.0.0.1", 0), Kept)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    base = f"http://127.0.0.1:{http.server_address[1]}"
    guard = opener()
    paths = ("/a", "/hops/2", "/last", "/b", "/large", "/c")
    assert [refusal(guard, base + path) for path in paths] == [
        *(["opened"] * 4),
        "too-large",
        "opened",
    ]
    guard.close()
    http.shutdown()
    http.server_close()
    thread.join()
    first, last, new = ports[0], ports[-2], ports[-1]
    assert ports == [*([first] * 5), last, last, new]
    assert len({first, last, new}) == 3


def test_what_the_server_said_is_kept_as_evidence() -> None:
    with hostile_server() as (base, _):
        guard = opener()
        assert refusal(guard, f"{base}/to//tag/otherbot:%20noai") == "opened something else"
        evidence = guard.evidence[f"{base}/to//tag/otherbot:%20noai"]
        refusal(guard, f"{base}/status/410")
        assert refusal(guard, f"{base}/tdm/1") == "opted-out"
    assert evidence.final_url == f"{base}/tag/otherbot:%20noai"
    assert (evidence.status, evidence.directives) == (200, "x-robots-tag: otherbot: noai")
    assert time.time() - 3600 < evidence.fetched_at <= time.time()
    assert guard.evidence[f"{base}/status/410"].status == 410
    assert guard.evidence[f"{base}/tdm/1"].directives == "tdm-reservation: 1"
    guard.close()
