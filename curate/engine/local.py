"""The local engine: a pool of processes that map a function over units of work, in order.

A worker builds what it needs (models) once, with its first unit. Workers end when the process that
started them does, so that a killed run leaves nobody behind who writes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

from stylear.curate.engine.gpus import take_gpu
from stylear.curate.engine.progress import Report, ignore_progress, set_reporter
from stylear.errors import StylearError

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # units waiting for each worker
POLL_S = 0.5  # between two looks at what the workers reported
_function: Callable[[Any], Any] | None = None  # of this worker


def map_units(
    build: Callable[[], Callable[[T], R]],
    units: Iterable[T],
    workers: int = 1,
    gpus: Sequence[str] = (),
    on_progress: Report | None = None,
) -> Iterator[R]:
    """`build()` once a worker, then what it gave on every unit; results in the order of `units`.

    With one worker everything happens in this process. With more, `build` and the units must be
    picklable, and each worker sees one of `gpus` only, where there are any. `on_progress` is told how
    many more images the workers reported. Raises what a unit raises, and StylearError when a worker dies.
    """
    if workers <= 1:
        yield from _map_here(build, units, on_progress)
        return
    context = get_context("spawn")
    places = context.SimpleQueue() if gpus else None
    for number in range(workers if gpus else 0):
        assert places is not None
        places.put(gpus[number % len(gpus)])
    counter = context.Value("q", 0) if on_progress is not None else None
    watch = CounterWatch(counter, on_progress)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(os.getpid(), places, counter)
    )
    # All workers start before the thread that watches them does. Started one by one beside it, a worker that
    # dies meanwhile would end that thread too (CPython: its dictionary of processes changes as it looks).
    pool._safe_to_dynamically_spawn_children = False  # type: ignore[attr-defined]
    waiting: deque[Future[R]] = deque()
    try:
        for unit in units:
            waiting.append(pool.submit(_run, build, unit))
            if len(waiting) >= AHEAD * workers:
                yield watch.wait_for(waiting.popleft())
        while waiting:
            yield watch.wait_for(waiting.popleft())
    except BaseException as error:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        # a pool that breaks while a unit is handed over fails with a closed handle
        if isinstance(error, BrokenProcessPool) or (isinstance(error, OSError) and pool._broken):
            raise StylearError(
                "a worker process died; often the machine ran out of memory",
                hint="use fewer --workers and run the same command again; finished shards are kept",
            ) from error
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _map_here(
    build: Callable[[], Callable[[T], R]], units: Iterable[T], on_progress: Report | None
) -> Iterator[R]:
    """`build()` once, then what it gave on every unit, in this process."""
    function: Callable[[T], R] | None = None
    before = set_reporter(on_progress or ignore_progress)
    try:
        for unit in units:
            function = function or build()
            yield function(unit)
    finally:
        set_reporter(before)


class CounterWatch:
    """Waits for results, and meanwhile tells what the workers added to a shared counter."""

    def __init__(self, counter: Any, on_progress: Report | None) -> None:
        self._counter, self._on_progress, self._told = counter, on_progress, 0

    def wait_for(self, future: Future[R]) -> R:
        """The result of a unit, or what it raised."""
        while self._on_progress is not None and not future.done():
            wait([future], POLL_S)
            self._tell()
        return future.result()

    def _tell(self) -> None:
        """Tell what is new."""
        count = self._counter.value
        if count > self._told and self._on_progress is not None:
            self._on_progress(count - self._told)
        self._told = count


def add_to_counter(counter: Any, count: int) -> None:
    """Add to a counter that processes share."""
    with counter.get_lock():
        counter.value += count


def _start(parent: int, gpus: Any, counter: Any) -> None:
    """Set a worker up: it ignores Ctrl-C, ends with its parent, has one GPU, and reports to the counter."""
    take_gpu(gpus)
    if counter is not None:
        set_reporter(partial(add_to_counter, counter))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    """End this process once the parent is gone (where the kernel does not do it)."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _run(build: Callable[[], Callable[[Any], Any]], unit: Any) -> Any:
    """One unit, in a worker."""
    global _function
    if _function is None:
        _function = build()
    return _function(unit)
