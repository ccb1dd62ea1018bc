"""Web: what may be asked of the network for weights, and what a refusal means to the user.

https only; http to the one origin that HF_ENDPOINT names. Redirects are followed by hand: each
place is checked again, none leads from the public into a private network, and the token goes to
the endpoint alone.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit

from stylear import __version__
from stylear.errors import UsageError, WeightsError

ENDPOINT = "https://huggingface.co"
TIMEOUT_S = 30.0  # ours: of each wait for the server, not of the whole transfer
MAX_REDIRECTS = 5  # ours
ATTEMPTS = 5  # ours
MAX_WAIT_S = 60.0  # ours
MAX_JSON_BYTES = 16 * 2**20  # ours
T = TypeVar("T")
pause = time.sleep  # tests take another

REDIRECTS = (301, 302, 303, 307, 308)
TOKEN_HINT = (
    "set HF_TOKEN to a token of an account that may read it; "
    "a licence is accepted on the model's page"
)


class Passing(Exception):
    """A failure that may be gone at the next attempt."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s  # what the server asked for


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or the public one. Raises UsageError when it is no URL."""
    url = os.environ.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise UsageError(f"HF_ENDPOINT: expected an http or https URL, found {url!r}")
    return url


def persist(action: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
    """What `action` returns, repeated with growing pauses as long as its failures may pass.

    Raises WeightsError after ATTEMPTS of them in a row between which `progress` did not grow.
    """
    failures = 0
    while True:
        before = progress()
        try:
            return action()
        except Passing as passing:
            failures = 1 if progress() > before else failures + 1
            if failures >= ATTEMPTS:
                raise WeightsError(
                    f"{passing} ({failures} times in a row)",
                    hint="run the same command again; what has arrived is kept",
                ) from passing
            pause(passing.wait_s or 2.0 ** (failures - 1))


def open_url(url: str, *, first: int = 0, hint: str = TOKEN_HINT) -> Any:
    """The response to a GET, from byte `first` on where the server can; to be closed by the caller.

    Raises Passing for what may pass, WeightsError for what will not; `hint` is for a refusal.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    for _ in range(MAX_REDIRECTS + 1):
        try:
            return opener.open(_request(url, first), timeout=TIMEOUT_S)
        except HTTPError as error:
            error.close()
            location = error.headers.get("Location")
            if error.code not in REDIRECTS or not location:
                raise _failure(url, error, hint) from None
            url = _redirected(url, location)
        except (URLError, http.client.HTTPException, OSError) as error:
            raise _unreached(url, error) from error
    raise WeightsError(f"{url}: expected the file, found more than {MAX_REDIRECTS} redirects")


def read_json(url: str, *, hint: str = TOKEN_HINT) -> dict[str, Any]:
    """The JSON object at a URL. Raises WeightsError or Passing."""
    with open_url(url, hint=hint) as response:
        try:
            data = response.read(MAX_JSON_BYTES + 1)
        except (http.client.HTTPException, OSError) as error:
            raise Passing(f"{url}: {error}") from error
    try:
        value = json.loads(data) if len(data) <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise WeightsError(
            f"{url}: expected a JSON object, found {data[:40]!r}",
            hint="HF_ENDPOINT must name a hub",
        )
    return value


def _request(url: str, first: int) -> urllib.request.Request:
    ours = _origin(url) == _origin(endpoint())
    if urlsplit(url).scheme != "https" and not (ours and urlsplit(url).scheme == "http"):
        raise WeightsError(
            f"{url}: expected an https URL",
            hint="http is allowed only to the address that HF_ENDPOINT names",
        )
    headers = {"User-Agent": f"stylear/{__version__}", "Accept-Encoding": "identity"}
    if first:
        headers["Range"] = f"bytes={first}-"
    if ours and (token := os.environ.get("HF_TOKEN", "").strip()):
        headers["Authorization"] = f"Bearer {token}"
    return urllib.request.Request(url, headers=headers)


def _redirected(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
        _, host, _ = _origin(url)
        _, other, _ = _origin(target)
    except ValueError:
        raise WeightsError(f"{url}: expected a redirect to a URL, found {location!r}") from None
    if other != host and _is_public(host) and not _is_public(other):
        raise WeightsError(
            f"{url}: redirects to {other}, which is not a public host",
            hint="a server of your own is named by HF_ENDPOINT",
        )
    return target


def _is_public(host: str) -> bool:
    """Whether all addresses of a host are public; a name that only a proxy knows counts as such."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return True
    return all(ipaddress.ip_address(str(address).split("%")[0]).is_global for address in found)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port


def _unreached(url: str, error: Exception) -> Exception:
    reason = error.reason if isinstance(error, URLError) else error
    said = f"{url}: cannot be reached: {reason or type(error).__name__}"
    if isinstance(reason, socket.gaierror):
        return WeightsError(said, hint="is this machine offline? HTTPS_PROXY names a proxy")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return WeightsError(said, hint="SSL_CERT_FILE names the certificates to trust")
    return Passing(said)


def _failure(url: str, error: HTTPError, hint: str) -> Exception:
    said = f"{url}: the server said {error.code} {error.reason}"
    if error.code in (408, 425, 429) or error.code >= 500:
        wait = error.headers.get("Retry-After", "")
        return Passing(said, min(MAX_WAIT_S, float(wait)) if wait.isdecimal() else 0.0)
    if error.code in (401, 403):
        return WeightsError(said, hint=hint)
    return WeightsError(said, hint="what is registered is no longer there: the source has changed")
