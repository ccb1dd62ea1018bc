"""Stops a run of which too few downloads succeed, for example without a network."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping

from stylear.errors import SourceError

WINDOW_BLOCKS = (
    4  # the latest blocks are counted together, as a list may have a stretch of dead hosts
)
HOPELESS = 100  # so many downloads without a single success end the run at once (our choice)
CHECK_NETWORK = "check the network and run the same command again (what failed is asked for again)"
HINTS = {  # what to do about the commonest failure
    "not-public-address": "hosts in private networks are reached only when named, e.g."
    " --allow-network 127.0.0.0/8",
    "robots-disallowed": "robots.txt forbids it; with `robots: false` it is not asked for",
    "robots-unreadable": "robots.txt cannot be read; with `robots: false` it is not asked for",
    "opted-out": "the sites opted out of being used for training; take other URLs",
    "http-404": "the files are gone; take a newer list",
    "not-an-image": "the URLs give pages, not pictures; check the URL column",
}

Outcomes = Mapping[str | None, int]  # reason (None: downloaded) -> downloads


class SuccessMonitor:
    """Counts the outcomes of blocks; stops a failing run and discards what failed."""

    def __init__(self, name: str, min_success: float) -> None:
        self._name, self._min = name, min_success
        self._window: deque[tuple[Outcomes, Callable[[], None]]] = deque(maxlen=WINDOW_BLOCKS)

    def count(self, outcomes: Outcomes, discard: Callable[[], None], last: bool) -> None:
        """Count a block (`last` of the list or not); `discard` deletes its downloads.

        Raises SourceError if too few downloads succeed.
        """
        if sum(outcomes.values()):
            self._window.append((outcomes, discard))
        total = self._total()
        hopeless = total.total() >= HOPELESS and not total[None]
        if last or hopeless or len(self._window) == WINDOW_BLOCKS:
            self._require_enough(total)

    def _total(self) -> Counter[str | None]:
        total: Counter[str | None] = Counter()
        for outcomes, _ in self._window:
            total.update(outcomes)
        return total

    def _require_enough(self, total: Counter[str | None]) -> None:
        tried = total.total()
        if not tried or total[None] >= self._min * tried:
            return
        for outcomes, discard in self._window:
            if outcomes.get(None, 0) < self._min * sum(outcomes.values()):
                discard()
        failures = Counter({reason: n for reason, n in total.items() if reason is not None})
        common = ", ".join(f"{reason} {n}" for reason, n in failures.most_common(3))
        raise SourceError(
            f"{self._name}: {total[None]} of the last {tried} downloads succeeded, expected at least"
            f" {self._min:.0%}; the others: {common}",
            hint=f"{HINTS.get(failures.most_common(1)[0][0], CHECK_NETWORK)};"
            " --min-success 0 continues regardless",
        )
