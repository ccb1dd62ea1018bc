"""HTTP for weights: which URLs may be requested, retries, and what a refusal means to the user.

Only https, or http to the origin in HF_ENDPOINT. Redirects are followed here, so that each target is
checked, none leads from a public host into a private network, and the token is sent to the endpoint only.
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
TIMEOUT_S = 30.0  # our choice: for each read, not for the whole transfer
MAX_REDIRECTS = 5  # our choice
ATTEMPTS = 5  # our choice
MAX_WAIT_S = 60.0  # our choice
MAX_JSON_BYTES = 16 * 2**20  # our choice
T = TypeVar("T")
pause = time.sleep  # replaced in tests

REDIRECTS = (301, 302, 303, 307, 308)
TOKEN_HINT = (
    "set HF_TOKEN to the token of an account with access; "
    "accept the licence on the model's page first"
)


class TransientError(Exception):
    """A failure that a retry may cure."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s  # from Retry-After; 0 if the server gave none


def get_endpoint() -> str:
    """The hub's URL: HF_ENDPOINT or the public hub. Raises UsageError if it is not a URL."""
    url = os.environ.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise UsageError(f"HF_ENDPOINT: expected an http or https URL, found {url!r}")
    return url


def retry_transient(action: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
    """Call `action`, retrying transient failures with exponential backoff; returns its result.

    Raises WeightsError after ATTEMPTS consecutive failures without an increase of `progress`.
    """
    failures = 0
    while True:
        before = progress()
        try:
            return action()
        except TransientError as failure:
            failures = 1 if progress() > before else failures + 1
            if failures >= ATTEMPTS:
                raise WeightsError(
                    f"{failure} ({failures} times in a row)",
                    hint="run the same command again; received bytes are kept",
                ) from failure
            pause(failure.wait_s or 2.0 ** (failures - 1))


def open_url(url: str, *, first: int = 0, hint: str = TOKEN_HINT) -> Any:
    """The response to a GET from byte `first` on, if the server supports ranges; the caller closes it.

    Raises TransientError if a retry may help, else WeightsError; `hint` is shown if access is denied.
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
                raise _explain_status(url, error, hint) from None
            url = _follow_redirect(url, location)
        except (URLError, http.client.HTTPException, OSError) as error:
            raise _explain_unreachable(url, error) from error
    raise WeightsError(f"{url}: expected the file, found more than {MAX_REDIRECTS} redirects")


def read_json(url: str, *, hint: str = TOKEN_HINT) -> dict[str, Any]:
    """The JSON object at a URL. Raises WeightsError or TransientError."""
    with open_url(url, hint=hint) as response:
        try:
            data = response.read(MAX_JSON_BYTES + 1)
        except (http.client.HTTPException, OSError) as error:
            raise TransientError(f"{url}: {error}") from error
    try:
        value = json.loads(data) if len(data) <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise WeightsError(
            f"{url}: expected a JSON object, found {data[:40]!r}",
            hint="set HF_ENDPOINT to the URL of a hub",
        )
    return value


def _request(url: str, first: int) -> urllib.request.Request:
    is_endpoint = _origin(url) == _origin(get_endpoint())
    if urlsplit(url).scheme != "https" and not (is_endpoint and urlsplit(url).scheme == "http"):
        raise WeightsError(
            f"{url}: expected an https URL",
            hint="http is allowed only for the URL in HF_ENDPOINT",
        )
    headers = {"User-Agent": f"stylear/{__version__}", "Accept-Encoding": "identity"}
    if first:
        headers["Range"] = f"bytes={first}-"
    if is_endpoint and (token := os.environ.get("HF_TOKEN", "").strip()):
        headers["Authorization"] = f"Bearer {token}"
    return urllib.request.Request(url, headers=headers)


def _follow_redirect(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
        _, host, _ = _origin(url)
        _, other, _ = _origin(target)
    except ValueError:
        raise WeightsError(f"{url}: expected a redirect to a URL, found {location!r}") from None
    if other != host and _is_public(host) and not _is_public(other):
        raise WeightsError(
            f"{url}: redirects to {other}, which is not a public host",
            hint="if this is your own server, set HF_ENDPOINT to its URL",
        )
    return target


def _is_public(host: str) -> bool:
    """Whether all addresses of a host are public; a name that does not resolve here counts as public."""
    try:
        addresses = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return True
    return all(ipaddress.ip_address(str(address).split("%")[0]).is_global for address in addresses)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port


def _explain_unreachable(url: str, error: Exception) -> Exception:
    reason = error.reason if isinstance(error, URLError) else error
    message = f"{url}: cannot be reached: {reason or type(error).__name__}"
    if isinstance(reason, socket.gaierror):
        return WeightsError(message, hint="check the network; HTTPS_PROXY sets a proxy")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return WeightsError(message, hint="SSL_CERT_FILE sets the certificates to trust")
    return TransientError(message)


def _explain_status(url: str, error: HTTPError, hint: str) -> Exception:
    message = f"{url}: the server responded {error.code} {error.reason}"
    if error.code in (408, 425, 429) or error.code >= 500:
        wait = error.headers.get("Retry-After", "")
        return TransientError(message, min(MAX_WAIT_S, float(wait)) if wait.isdecimal() else 0.0)
    if error.code in (401, 403):
        return WeightsError(message, hint=hint)
    return WeightsError(
        message, hint="the registered file no longer exists: the source has changed"
    )
