"""Progress of workers: each reports finished images, and the waiting process adds them up.

A unit of work is a shard, which takes minutes; a bar that moved only between units would seem stuck.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stylear.console import Bar

Report = Callable[[int], None]


def ignore_progress(count: int) -> None:
    """Discard a report: nothing shows progress."""


_report: Report = ignore_progress  # of this process


def report_progress(count: int = 1) -> None:
    """Report that `count` more images are done; called by the code that a worker runs."""
    _report(count)


def set_reporter(report: Report) -> Report:
    """Send further reports of this process to `report`; returns the previous receiver."""
    global _report
    before, _report = _report, report
    return before


class WorkProgress:
    """A bar that moves as workers report, and is exact whenever a unit is finished.

    A unit that ran twice because its worker died is reported twice: the bar then pauses until the
    finished units have caught up.
    """

    def __init__(self, bar: Bar, total: int) -> None:
        self._bar, self._total = bar, total
        self._reported = self._finished = self._shown = 0

    def report(self, count: int) -> None:
        """Workers reported `count` more."""
        self._reported += count
        self._show()

    def finish(self, count: int, note: str = "") -> None:
        """A unit of `count` is finished."""
        self._finished += count
        self._show(note)

    def _show(self, note: str = "") -> None:
        done = max(self._finished, min(self._reported, self._total))
        if done > self._shown or note:
            self._bar.advance(max(0, done - self._shown), note)
            self._shown = max(done, self._shown)
