"""Refused requests, and the URLs that are never requested."""

from __future__ import annotations

import re
from urllib.error import URLError
from urllib.parse import quote, urlsplit, urlunsplit

MAX_URL = 4000  # characters
SAFE = "%/:=&?~#+!$,;'@()*[]"  # characters of a URL that are not percent-encoded


class RequestRefused(URLError):
    """A request that was not made or not finished; `name` is the pair's rejection reason."""

    def __init__(self, name: str, details: str = "") -> None:
        super().__init__(f"refused[{name}] {details}".rstrip())
        self.name = name


def plain_url(url: str) -> str:
    """Normalise a URL for a request: percent-encoded ASCII, host in IDNA.

    Raises RequestRefused: not-http for another scheme; bad-url for control characters, credentials, a bad
    port or host, or more than 4000 characters.
    """
    text = url.strip()
    scheme = text.partition(":")[0].lower()
    if scheme not in ("http", "https") or not text[len(scheme) :].startswith("://"):
        raise RequestRefused("not-http", scheme[:20])
    if len(text) > MAX_URL or re.search(r"[\x00-\x1f\x7f\\]", text):
        raise RequestRefused("bad-url")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
        path, query = quote(parts.path, safe=SAFE), quote(parts.query, safe=SAFE)
    except (ValueError, UnicodeError) as error:
        raise RequestRefused("bad-url", str(error)) from error
    if not re.fullmatch(r"[A-Za-z0-9._:-]+", host) or parts.username is not None:
        raise RequestRefused("bad-url", "host")
    netloc = f"[{host}]" if ":" in host else host
    return urlunsplit((scheme, netloc if port is None else f"{netloc}:{port}", path, query, ""))
