"""The guard: the one opener through which URLs are downloaded, and what it refuses.

img2dataset downloads with `urllib.request.urlopen`, so `install_opener(GuardedOpener(...))` in its
process lets the guard see every request and every redirect. Only http and https exist here (no file,
ftp or data handlers, no proxies). A host is resolved once, its addresses are checked, and the
connection goes to a checked address, so a second answer of the name server changes nothing.
"""

from __future__ import annotations

import functools
import http.client
import io
import ipaddress
import re
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.error import URLError
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.response import addinfourl

import stylear

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL = 4000  # characters
MAX_REDIRECTS = 5
CHUNK = 1 << 16  # bytes read between two looks at the clock
NAT64 = ipaddress.ip_network("64:ff9b::/96")
SAFE = "%/:=&?~#+!$,;'@()*[]"  # characters of a URL that are left as they are


class Refused(URLError):
    """A request that is not made or not finished; `name` is the reason that the pair will carry."""

    def __init__(self, name: str, found: str = "") -> None:
        super().__init__(f"refused[{name}] {found}".rstrip())
        self.name = name


@dataclass(frozen=True, slots=True)
class Limits:
    """What a download may cost and where it may go."""

    timeout_s: float = 10.0  # one wait for the other side (base: img2dataset)
    deadline_s: float = 60.0  # one download from connect to last byte (ours)
    max_bytes: int = 50_000_000  # one body (ours)
    allow_networks: tuple[str, ...] = ()  # CIDRs that may be reached though they are not public
    contact: str | None = None  # web page or mail address named in the user agent

    @property
    def user_agent(self) -> str:
        """Who is asking; servers can tell us from a browser."""
        contact = f" (+{self.contact})" if self.contact else ""
        return f"stylear/{stylear.__version__}{contact}"


def plain_url(url: str) -> str:
    """`url` ready to be requested: percent-encoded ASCII, host in IDNA.

    Raises Refused: not-http for another scheme; bad-url for control characters, credentials, a bad
    port or host, or more than 4000 characters.
    """
    text = url.strip()
    scheme = text.partition(":")[0].lower()
    if scheme not in ("http", "https") or not text[len(scheme) :].startswith("://"):
        raise Refused("not-http", scheme[:20])
    if len(text) > MAX_URL or re.search(r"[\x00-\x1f\x7f\\]", text):
        raise Refused("bad-url")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
        path, query = quote(parts.path, safe=SAFE), quote(parts.query, safe=SAFE)
    except (ValueError, UnicodeError) as error:
        raise Refused("bad-url", str(error)) from error
    if not re.fullmatch(r"[A-Za-z0-9._:-]+", host) or parts.username is not None:
        raise Refused("bad-url", "host")
    place = f"[{host}]" if ":" in host else host
    return urlunsplit((scheme, place if port is None else f"{place}:{port}", path, query, ""))


def embedded(address: IPAddress) -> IPAddress:
    """The IPv4 address inside an IPv6 address that only wraps one; else the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address.teredo is not None:
            return address.teredo[1]
        if address in NAT64 or int(address) < 2**32:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_allowed(text: str, networks: Sequence[IPNetwork] = ()) -> bool:
    """Whether an address (as text) is public, or inside one of `networks`."""
    try:
        literal: IPAddress = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    address = embedded(literal)
    for network in networks:
        if (address.version == network.version and address in network) or (
            literal.version == network.version and literal in network
        ):
            return True
    local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not (address.is_multicast or address.is_reserved or local)


class GuardedOpener(urllib.request.OpenerDirector):
    """Opens http and https URLs within `limits`; `final_urls` remembers where redirects ended."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.networks = [ipaddress.ip_network(text) for text in limits.allow_networks]
        self.final_urls: dict[str, str] = {}
        self._lock = threading.Lock()
        for handler in (
            _PlainHandler(self.connect, limits.user_agent),
            _TlsHandler(self.connect, limits.user_agent),
            _RedirectHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            self.add_handler(handler)

    def open(self, fullurl: Any, data: Any = None, timeout: Any = None) -> Any:
        """The response with its body already read and within bounds. Raises URLError (Refused)."""
        if isinstance(fullurl, str):
            fullurl = urllib.request.Request(fullurl)
        asked = fullurl.full_url
        plain_url(asked)
        if hasattr(fullurl, "redirect_dict"):  # a redirect: the outer call reads the body
            return super().open(fullurl, data, self.limits.timeout_s)
        until = time.monotonic() + self.limits.deadline_s
        with super().open(fullurl, data, self.limits.timeout_s) as response:
            body = self._read(response, until)
            if response.url != asked:
                with self._lock:
                    self.final_urls[asked] = response.url
            headers: Message = response.headers
            return addinfourl(io.BytesIO(body), headers, response.url, response.status)

    def connect(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """A connection to a checked address of `host`. Raises Refused or OSError."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise Refused("unknown-host", host) from error
        addresses = [str(info[4][0]) for info in found]
        allowed = [address for address in addresses if is_allowed(address, self.networks)]
        if not allowed:
            raise Refused("not-public-address", f"{host} is {addresses[0]}")
        for address in allowed[:-1]:
            try:
                return socket.create_connection((address, port), timeout_s)
            except OSError:
                continue
        return socket.create_connection((allowed[-1], port), timeout_s)

    def _read(self, response: Any, until: float) -> bytes:
        """The body, within the byte limit and the deadline."""
        declared = response.headers.get("Content-Length", "")
        expected = int(declared) if declared.isascii() and declared.isdigit() else None
        if expected is not None and expected > self.limits.max_bytes:
            raise Refused("too-large", declared)
        body = bytearray()
        while chunk := response.read1(CHUNK):
            body += chunk
            if len(body) > self.limits.max_bytes:
                raise Refused("too-large", f"more than {self.limits.max_bytes}")
            if time.monotonic() > until:
                raise Refused("timeout", f"no end after {self.limits.deadline_s} s")
        if expected is not None and len(body) < expected:
            raise Refused("cut-off", f"{len(body)} of {expected} bytes")
        return bytes(body)


Connect = Callable[[str, int, float], socket.socket]


class _PinnedConnection(http.client.HTTPConnection):
    """Connects where the guard says; for https the certificate must still be that of the host."""

    def __init__(
        self,
        host: str,
        *,
        guard_connect: Connect,
        tls: ssl.SSLContext | None,
        timeout: float,
        **_: object,
    ) -> None:
        self.default_port = 443 if tls else 80
        super().__init__(host, timeout=timeout)
        self._guard_connect, self._tls, self._wait_s = guard_connect, tls, timeout

    def connect(self) -> None:
        sock = self._guard_connect(self.host, self.port, self._wait_s)
        self.sock = self._tls.wrap_socket(sock, server_hostname=self.host) if self._tls else sock


class _Handler(urllib.request.AbstractHTTPHandler):
    """What the http and https handlers share: pinned connections and an honest name."""

    def __init__(self, connect: Connect, user_agent: str) -> None:
        super().__init__()
        self._connect, self._user_agent = connect, user_agent

    def prepare(self, request: urllib.request.Request) -> urllib.request.Request:
        """The request under our own name (img2dataset calls itself Firefox), to an encoded URL."""
        plain = plain_url(request.full_url)
        if plain != request.full_url:
            request.full_url = plain
        request.add_header("User-agent", self._user_agent)
        prepared: urllib.request.Request = self.do_request_(request)
        return prepared

    def send(self, request: urllib.request.Request, tls: ssl.SSLContext | None) -> Any:
        """The response of the server."""
        connection = functools.partial(_PinnedConnection, guard_connect=self._connect, tls=tls)
        try:
            return self.do_open(connection, request)
        except URLError as error:  # urllib wraps what a connection raises
            raise error.reason if isinstance(error.reason, Refused) else error from None


class _PlainHandler(_Handler):
    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        return self.prepare(request)

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.send(request, None)


class _TlsHandler(_Handler):
    def __init__(self, connect: Connect, user_agent: str) -> None:
        super().__init__(connect, user_agent)
        self._context = ssl.create_default_context()

    def https_request(self, request: urllib.request.Request) -> urllib.request.Request:
        return self.prepare(request)

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.send(request, self._context)


class _RedirectHandler(urllib.request.HTTPRedirectHandler):
    """Follows at most five redirects, each to a URL that could have been asked for itself."""

    max_redirections = MAX_REDIRECTS
    max_repeats = 2

    def http_error_302(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any
    ) -> Any:
        """The answer behind a redirect. Raises Refused before anything but http is touched."""
        target = headers.get("Location") or headers.get("URI") or ""
        scheme = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]*):", target)
        if scheme and scheme[1].lower() not in ("http", "https"):
            raise Refused("not-http", f"redirect to {scheme[1].lower()[:20]}")
        if len(getattr(req, "redirect_dict", {})) >= self.max_redirections:
            raise Refused("too-many-redirects", f"more than {self.max_redirections}")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302
