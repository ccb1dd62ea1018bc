"""The guard: the only opener that downloads URLs, with the limits that it enforces.

img2dataset downloads with `urllib.request.urlopen`, so `install_opener(GuardedOpener(...))` in its
process lets the guard see every request. Only http and https exist here (no file, ftp or data, no
proxies). A host is resolved, every address of it is checked, and the connection goes to a checked
address, which prevents DNS rebinding. Redirects are followed by the guard itself, each checked like a
URL of the list. The body is read here with its limits enforced chunk by chunk, and it is accepted only
if its header is that of an image within `max_pixels`.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit, urlunsplit

import stylear
from stylear.curate.fetch import optout, sniff
from stylear.curate.fetch.connections import Connection, ConnectionPool, Resolver
from stylear.curate.fetch.pace import RateLimiter, retry_after_s
from stylear.curate.fetch.refused import RequestRefused, plain_url
from stylear.curate.fetch.robots import MAX_BYTES as ROBOTS_BYTES
from stylear.curate.fetch.robots import RobotsCache

CHUNK = 1 << 16  # bytes per read
MAX_DRAIN_BYTES = (
    1 << 14
)  # an unwanted body up to this size is read so that its connection can be reused
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
RETRY_STATUSES = (429, 503)  # Retry-After is obeyed
MAX_WAIT_S = 30.0  # for a host; a URL that would wait longer is dropped (our choice)

REASONS: tuple[tuple[type[OSError], str], ...] = (  # what connections raise; the first match wins
    (TimeoutError, "timeout"),
    (ssl.SSLError, "tls-failed"),
    (ConnectionRefusedError, "connection-refused"),
    (ConnectionError, "connection-lost"),
    (OSError, "unreachable"),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a download: time, size and hosts."""

    timeout_s: float = 10.0  # one wait for the server (as in img2dataset)
    deadline_s: float = 60.0  # one download from connect to last byte, redirects included
    max_bytes: int = 50_000_000  # one body
    max_pixels: int = 64_000_000  # width times height, as declared in the header
    max_redirects: int = 5
    allow_networks: tuple[str, ...] = ()  # CIDRs that may be reached though they are not public
    host_requests_per_s: float | None = None  # on average, to one host
    robots: bool = False  # whether robots.txt is fetched and obeyed
    contact: str | None = None  # web page or mail address named in the user agent

    @property
    def user_agent(self) -> str:
        """The user agent, which differs from any browser's."""
        contact = f" (+{self.contact})" if self.contact else ""
        return f"stylear/{stylear.__version__}{contact}"


@dataclass(slots=True)
class Evidence:
    """The evidence of a download: its final URL and the server's response."""

    final_url: str | None = None  # after redirects; None without any
    status: int | None = None
    content_type: str | None = None
    directives: str | None = None  # opt-out headers, verbatim
    fetched_at: float = 0.0  # seconds since 1970


@dataclass(slots=True)
class Response:
    """The result of urlopen: headers and a body that has been read."""

    url: str
    status: int
    headers: Message
    body: io.BytesIO = field(default_factory=io.BytesIO)

    def read(self) -> bytes:
        return self.body.read()

    def close(self) -> None:
        self.body.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GuardedOpener:
    """Opens http and https URLs within `limits`; `evidence` holds the last response to each."""

    def __init__(self, limits: Limits) -> None:
        networks = [ipaddress.ip_network(text) for text in limits.allow_networks]
        self.limits = limits
        self.pace = RateLimiter(limits.host_requests_per_s)
        self.evidence: dict[str, Evidence] = {}
        self._connections = ConnectionPool(Resolver(networks), limits.timeout_s)
        self._robots = RobotsCache(self._fetch_robots_txt) if limits.robots else None
        self._lock = threading.Lock()

    def open(self, fullurl: Any, data: None = None, timeout: Any = None) -> Response:
        """Open the image behind a URL, within the limits. Raises RequestRefused and HTTPError."""
        url = fullurl if isinstance(fullurl, str) else str(fullurl.full_url)
        evidence = Evidence(fetched_at=time.time())
        with self._lock:
            self.evidence[url] = evidence
        try:
            return self._follow(plain_url(url), evidence)
        except URLError:
            raise
        except OSError as error:
            name = next(name for kind, name in REASONS if isinstance(error, kind))
            raise RequestRefused(name, str(error)) from error

    def close(self) -> None:
        """Close all idle connections."""
        self._connections.close()

    def _follow(self, url: str, evidence: Evidence | None) -> Response:
        """Follow up to `max_redirects` redirects to a response; `evidence` is None for robots.txt itself."""
        until = time.monotonic() + self.limits.deadline_s
        start, patient = url, True
        hops = 0
        while True:
            if evidence is not None and self._robots is not None:
                reason = self._robots.find_refusal(url)
                if reason is not None:
                    raise RequestRefused(reason, urlsplit(url).netloc)
            host = urlsplit(url).hostname or ""
            waited_s = self.pace.wait(host, MAX_WAIT_S)
            if waited_s is None:
                raise RequestRefused("retry-later", host)
            until += waited_s
            answer, target = self._request(url, until, evidence)
            if evidence is not None:
                evidence.status = answer.status
                evidence.final_url = url if url != start else None
            if target is not None:
                if hops == self.limits.max_redirects:
                    raise RequestRefused("too-many-redirects", f"more than {hops}")
                hops, url = hops + 1, plain_url(urljoin(url, target))
                continue
            if answer.status in RETRY_STATUSES:
                wait_s = retry_after_s(answer.headers["Retry-After"])
                if wait_s is not None:
                    self.pace.back_off(host, wait_s)
                    if patient and wait_s <= MAX_WAIT_S:
                        patient = False
                        continue
            if not 200 <= answer.status < 300:
                phrase = http.client.responses.get(answer.status, "")
                raise HTTPError(url, answer.status, phrase, answer.headers, None)
            return answer

    def _request(
        self, url: str, until: float, evidence: Evidence | None
    ) -> tuple[Response, str | None]:
        """Make one request: its response, with the body if it succeeded, and the redirect target."""
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        connection = self._connections.take((parts.scheme, parts.hostname or "", port))
        whole = False
        try:
            response = self._send(connection, url, until)
            answer = Response(url, response.status, response.headers)
            target = None
            if response.status in REDIRECT_STATUSES and response.headers["Location"]:
                target = response.headers["Location"].encode("latin-1").decode("utf-8", "replace")
            elif 200 <= response.status < 300:
                answer.body = io.BytesIO(self._read_body(response, evidence))
            whole = _is_read(response)
            return answer, target
        except http.client.IncompleteRead as error:
            raise RequestRefused("cut-off", "in a chunk") from error
        except http.client.HTTPException as error:
            if isinstance(error, ConnectionError):
                raise
            raise RequestRefused("bad-answer", type(error).__name__) from error
        finally:
            if whole:
                self._connections.keep(connection)
            else:
                connection.end()

    def _send(self, connection: Connection, url: str, until: float) -> http.client.HTTPResponse:
        """Send a request and read the response head; retry if an idle connection was closed."""
        parts = urlsplit(url)
        path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        while True:
            connection.open(until)
            try:
                connection.request("GET", path, headers={"User-Agent": self.limits.user_agent})
                return connection.getresponse()
            except (ConnectionError, http.client.BadStatusLine):
                if not connection.used:
                    raise
                connection.end()

    def _read_body(self, response: http.client.HTTPResponse, evidence: Evidence | None) -> bytes:
        """Read the body of a successful response within the limits on bytes and pixels."""
        limit = ROBOTS_BYTES if evidence is None else self.limits.max_bytes
        if evidence is not None:
            evidence.content_type = (response.headers["Content-Type"] or "")[:100] or None
            evidence.directives = optout.read_directives(response.headers)
            if optout.forbids_use(response.headers):
                raise RequestRefused("opted-out", evidence.directives or "")
        expected = response.length
        if expected is not None and expected > limit and evidence is not None:
            raise RequestRefused("too-large", str(expected))
        check = None if evidence is None else sniff.BodyCheck(self.limits.max_pixels)
        body = bytearray()
        while chunk := response.read1(CHUNK):
            body += chunk
            if len(body) > limit:
                if evidence is None:
                    break  # the beginning of a robots.txt is enough
                raise RequestRefused("too-large", f"more than {limit}")
            if check is not None:
                check.check(body)
        if expected is not None and len(body) < min(expected, limit):
            raise RequestRefused("cut-off", f"{len(body)} of {expected} bytes")
        if check is not None:
            check.check(body, whole=True)
        return bytes(body)

    def _fetch_robots_txt(self, url: str) -> str | None:
        """The text of a robots.txt; None if there is none. Raises OSError if the site cannot say."""
        try:
            with self._follow(url, None) as answer:
                return answer.read().decode("utf-8-sig", "replace")
        except HTTPError as error:
            if 400 <= error.code < 500 and error.code != 429:
                return None
            raise


def _is_read(response: http.client.HTTPResponse) -> bool:
    """Whether the connection can be reused; a short unread body (an error page) is read first."""
    if response.will_close:
        return False
    if response.length and response.length > MAX_DRAIN_BYTES:
        return False
    with suppress(OSError, http.client.HTTPException):  # the response is complete either way
        response.read()
    return response.isclosed()
