"""The clients of object stores, and retries with backoff around them.

A client retries transient failures (5xx, dropped connections, timeouts) by itself. Calls that still fail are
retried here a bounded number of times and then raise StoreFailed.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from stylear.errors import StoreFailed, UsageError

T = TypeVar("T")

PAUSES_S = (0.5, 2.0, 8.0)  # between our tries, on top of the client's own
RETRIES = 8
BACKOFF_S = (0.1, 10.0)  # first and longest
TIMEOUT_S = (10, 120)  # to connect; for one request
OBSTORE = ("s3", "gs", "az")  # one client for all three, where it is installed
NO_BUCKET = "the store has no such bucket"
NO_BUCKET_CODES = ("NoSuchBucket", "ContainerNotFound")  # of S3 and GCS, of Azure
FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
FINAL_NAMES = (
    "PermissionDenied",
    "Unauthenticated",
    "NotSupported",
    "InvalidPath",
    "Configuration",
)


@cache
def open_filesystem(protocol: str) -> Any:
    """The fsspec filesystem of a protocol. Raises UsageError when none is installed."""
    import fsspec
    from fsspec.config import conf

    if protocol in OBSTORE and not conf.get(protocol) and importlib.util.find_spec("obstore"):
        first, longest = (timedelta(seconds=seconds) for seconds in BACKOFF_S)
        connect, request = (timedelta(seconds=seconds) for seconds in TIMEOUT_S)
        return flat_store_class()(
            protocol,
            # plain http is spoken only where the endpoint in the environment says so
            client_options={"allow_http": True, "connect_timeout": connect, "timeout": request},
            retry_config={
                "max_retries": RETRIES,
                "backoff": {"init_backoff": first, "max_backoff": longest, "base": 2},
                "retry_timeout": timedelta(seconds=180),
            },
        )
    try:
        return fsspec.filesystem(protocol)
    except ValueError:
        raise UsageError(
            f"{protocol}://: expected a protocol such as s3, gs, az or memory, found an unknown one"
        ) from None
    except ImportError as error:
        hint = "pip install 'stylear[s3]'" if protocol in OBSTORE else str(error)
        raise UsageError(f"{protocol}://: no client for it is installed", hint=hint) from error


def flat_store_class() -> Any:
    """A subclass of obstore's filesystem that lists recursively in one request and never looks for folders.

    The original lists every folder separately, and looks for a folder wherever there is no object.
    """
    from obstore.fsspec import FsspecStore

    class FlatStore(FsspecStore):  # type: ignore[misc]
        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path.rpartition("://")[2].rstrip("/")

        async def _find(self, path: str, **_: Any) -> list[str]:
            bucket, prefix = self._split_path(path)
            stream = self._construct_store(bucket).list(f"{prefix.rstrip('/')}/")
            return [f"{bucket}/{entry['path']}" async for batch in stream for entry in batch]

        async def _info(self, path: str, **_: Any) -> dict[str, Any]:
            bucket, name = self._split_path(path)
            entry = await self._construct_store(bucket).head_async(name)
            return {"name": path, "size": entry["size"], "type": "file"}

    return FlatStore


def with_retries(path: object, call: Callable[[], T]) -> T:
    """Call `call()`, and retry it after a pause while it fails for a transient reason.

    Final errors (FileNotFoundError, PermissionError ...) are raised unchanged, others as StoreFailed after
    the last try. Bugs (TypeError ...) are not caught.
    """
    for pause_s in (*PAUSES_S, None):
        try:
            return call()
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        except FINAL:
            raise
        except Exception as error:
            foreign = type(error).__module__ != "builtins"  # of the client's own error tree
            if not isinstance(error, OSError) and not foreign:
                raise
            if any(code in str(error) for code in NO_BUCKET_CODES):
                raise StoreFailed(str(path), NO_BUCKET) from error
            final = any(name in type(error).__name__ for name in FINAL_NAMES)
            if final or pause_s is None:
                message = (str(error) or type(error).__name__).splitlines()[0]
                # an endpoint may carry a password
                message = re.sub(r"://[^/@\s]*@", "://", message)
                raise StoreFailed(str(path), message) from error
        time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")
