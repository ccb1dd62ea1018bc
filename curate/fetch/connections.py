"""HTTP connections to checked addresses only, each with a deadline, kept alive for further requests."""

from __future__ import annotations

import functools
import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from stylear.curate.fetch.refused import RequestRefused

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

NAT64 = ipaddress.ip_network("64:ff9b::/96")
NAMES_KEPT_S = 60.0  # how long checked addresses of a host are cached
MAX_NAMES = 10_000
MAX_IDLE = 128  # connections kept open for the next request
IDLE_S = 5.0  # many servers close after five seconds


def unwrap_ipv4(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 address wraps, or else the address itself."""
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
    address = unwrap_ipv4(literal)
    for network in networks:
        if (address.version == network.version and address in network) or (
            literal.version == network.version and literal in network
        ):
            return True
    local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not (address.is_multicast or address.is_reserved or local)


class Resolver:
    """Resolves hosts to checked addresses; each name is looked up at most once a minute."""

    def __init__(self, networks: Sequence[IPNetwork]) -> None:
        self._networks, self._lock = networks, threading.Lock()
        self._known: OrderedDict[tuple[str, int], tuple[float, list[str]]] = OrderedDict()

    def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of `host`. Raises RequestRefused: unknown-host, or not-public-address for any one."""
        now = time.monotonic()
        with self._lock:
            since, known = self._known.get((host, port), (now - NAMES_KEPT_S, []))
        if known and now - since < NAMES_KEPT_S:
            return known
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise RequestRefused("unknown-host", host) from error
        addresses = [str(info[4][0]) for info in infos]
        for address in addresses:
            if not is_allowed(address, self._networks):
                raise RequestRefused("not-public-address", f"{host} is {address}")
        with self._lock:
            self._known[host, port] = now, addresses
            if len(self._known) > MAX_NAMES:
                self._known.popitem(last=False)
        return addresses


class DeadlineSocket(io.RawIOBase):
    """A connected socket whose waits end after `timeout_s` or at `until`, whichever comes first."""

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self._sock, self._timeout_s, self.until = sock, timeout_s, 0.0
        self._wait_s = 0.0  # the socket's timeout; setting it costs a system call

    def _set_timeout(self) -> None:
        left = self.until - time.monotonic()
        if left <= 0:
            raise RequestRefused("timeout", "no end before the deadline")
        wait_s = min(left, self._timeout_s)
        if wait_s != self._wait_s:
            self._sock.settimeout(wait_s)
            self._wait_s = wait_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._set_timeout()
        return self._sock.recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        self._set_timeout()
        self._sock.sendall(data)

    def makefile(self, *_: object) -> io.BufferedReader:
        """The stream from which http.client reads a response; closing it leaves the socket open."""
        return _Reader(self, 1 << 14)

    def close(self) -> None:
        """Do nothing: http.client closes the socket before it has read the last response."""

    def end(self) -> None:
        self._sock.close()


class _Reader(io.BufferedReader):
    def close(self) -> None:
        """Do nothing: the connection stays open."""


class Connection(http.client.HTTPConnection):
    """One connection to a checked address; for https the certificate must be that of the host."""

    def __init__(
        self, endpoint: tuple[str, str, int], names: Resolver, timeout_s: float, tls: ssl.SSLContext
    ) -> None:
        self.endpoint, self.used, self.idle_since = endpoint, False, 0.0
        self._names, self._timeout_s, self._tls_context = names, timeout_s, tls
        self.default_port = 443 if endpoint[0] == "https" else 80
        super().__init__(endpoint[1], endpoint[2])
        self.wire: DeadlineSocket | None = None

    def open(self, until: float) -> None:
        """Connect if not connected; everything up to the next call must end by `until`. Raises OSError."""
        if self.wire is None:
            scheme, host, port = self.endpoint
            sock = self._connect(self._names.addresses(host, port), port, until)
            if scheme == "https":
                sock = self._wrap_tls(sock, host)
            self.wire = DeadlineSocket(sock, self._timeout_s)
            self.sock = self.wire
        self.wire.until = until

    def end(self) -> None:
        """Close the connection; `open` connects again."""
        self.close()
        if self.wire is not None:
            self.wire.end()
        self.wire, self.used = None, False

    def _wrap_tls(self, sock: socket.socket, host: str) -> ssl.SSLSocket:
        try:
            return self._tls_context.wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise

    def _connect(self, addresses: list[str], port: int, until: float) -> socket.socket:
        for left, address in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
            wait_s = min(self._timeout_s, until - time.monotonic())
            if wait_s <= 0:
                break
            try:
                sock = socket.create_connection((address, port), wait_s)
            except OSError:
                if not left:
                    raise
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
        raise RequestRefused("timeout", "no connection before the deadline")


class ConnectionPool:
    """Keeps idle connections and opens new ones; safe to share among threads."""

    def __init__(self, names: Resolver, timeout_s: float) -> None:
        self._new = functools.partial(
            Connection, names=names, timeout_s=timeout_s, tls=ssl.create_default_context()
        )
        self._lock, self._idle = threading.Lock(), OrderedDict[int, Connection]()

    def take(self, endpoint: tuple[str, str, int]) -> Connection:
        """Take an idle connection to (scheme, host, port), or open one."""
        with self._lock:
            oldest = time.monotonic() - IDLE_S
            for number, connection in reversed(self._idle.items()):
                if connection.endpoint == endpoint:
                    del self._idle[number]
                    if connection.idle_since > oldest:
                        return connection
                    connection.end()
                    break
        return self._new(endpoint)

    def keep(self, connection: Connection) -> None:
        """Return a connection whose response was read to its end."""
        connection.used, connection.idle_since = True, time.monotonic()
        with self._lock:
            self._idle[id(connection)] = connection
            surplus = self._idle.popitem(last=False)[1] if len(self._idle) > MAX_IDLE else None
        if surplus is not None:
            surplus.end()

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = list(self._idle.values()), OrderedDict()
        for connection in idle:
            connection.end()
