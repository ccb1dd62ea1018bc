"""A client of the review page, as a browser or as someone who should not reach it."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen


def request(
    url: str, body: Any = None, *, method: str | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of a GET, or with a body of a POST as JSON."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items() if value}
    try:
        with urlopen(Request(url, data, named, method=method), timeout=10) as reply:
            return reply.status, dict(reply.headers), reply.read()
    except HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def origin_of(url: str) -> str:
    """The origin of the page itself."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def post(url: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    """(status, state) of a POST as the page sends it."""
    status, _, data = request(
        url + path, body, Origin=origin_of(url), Content_Type="application/json"
    )
    return status, json.loads(data)


def state(url: str) -> dict[str, Any]:
    """The state that the page shows."""
    shown: dict[str, Any] = json.loads(request(url + "state")[2])
    return shown
