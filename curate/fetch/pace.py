"""Rate limits of requests to a host, and the pauses that its Retry-After asks for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

MAX_PAUSE_S = 3600.0  # a longer Retry-After is shortened to this
MAX_HOSTS = 10_000  # kept in memory; hosts without a pending pause are evicted first


class RateLimiter:
    """Limits requests to a host: `requests_per_s` on average, and none while it backs off."""

    def __init__(
        self,
        requests_per_s: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.interval_s = 0.0 if requests_per_s is None else 1 / requests_per_s
        self._clock, self._sleep, self._lock = clock, sleep, threading.Lock()
        self._next: dict[str, float] = {}  # when its rate allows the next request
        self._resting: dict[str, float] = {}  # the end of its Retry-After

    def wait(self, host: str, max_wait_s: float) -> float | None:
        """Wait for the host's next slot; the seconds waited, or None if that would take too long."""
        with self._lock:
            now = self._clock()
            delay_s = self._resting.get(host, now) - now
            if self.interval_s:
                budget = max(self._next.get(host, now), now)
                delay_s = max(delay_s, budget - now - max(0.0, 1 - self.interval_s))
            if delay_s > max_wait_s:
                return None
            if self.interval_s:
                self._next[host] = budget + self.interval_s
                self._forget(self._next, now)
        if delay_s > 0:
            self._sleep(delay_s)
        return max(0.0, delay_s)

    def back_off(self, host: str, seconds: float) -> None:
        """Send no request to a host for some seconds."""
        with self._lock:
            now = self._clock()
            until = now + min(seconds, MAX_PAUSE_S)
            self._resting[host] = max(until, self._resting.get(host, until))
            self._forget(self._resting, now)

    @staticmethod
    def _forget(hosts: dict[str, float], now: float) -> None:
        if len(hosts) > MAX_HOSTS:
            for host in [host for host, until in hosts.items() if until <= now]:
                del hosts[host]


def retry_after_s(value: str | None, now: float | None = None) -> float | None:
    """The seconds that a Retry-After header asks for, a number or a date; None without one."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, when - (time.time() if now is None else now))
