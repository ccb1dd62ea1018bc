"""The local engine: a pool of processes that map a function over units of work, in order.

A worker loads what it needs (models) once, for its first unit. Workers exit when the process that started
them does, so a killed run leaves no process behind that still writes.
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

AHEAD = 2  # units queued for each worker
POLL_S = 0.5  # between two reads of the workers' counter
_function: Callable[[Any], Any] | None = None  # of this worker process


def map_units(
    build: Callable[[], Callable[[T], R]],
    units: Iterable[T],
    workers: int = 1,
    gpus: Sequence[str] = (),
    on_progress: Report | None = None,
) -> Iterator[R]:
    """Call `build()` once in each worker and its result on every unit; yield the results in order.

    One worker is this process. With several, `build` and the units must be picklable, and if there are
    `gpus` each worker sees only one of them. `on_progress` is called with the number of images that the
    workers have newly reported. Raises what a unit raises, and StylearError if a worker dies.
    """
    if workers <= 1:
        yield from _map_in_process(build, units, on_progress)
        return
    context = get_context("spawn")
    gpu_queue = context.SimpleQueue() if gpus else None
    for number in range(workers if gpus else 0):
        assert gpu_queue is not None
        gpu_queue.put(gpus[number % len(gpus)])
    counter = context.Value("q", 0) if on_progress is not None else None
    watch = CounterWatch(counter, on_progress)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=_start_worker,
        initargs=(os.getpid(), gpu_queue, counter),
    )
    # Start all workers before the pool's watching thread. If they were started one by one while it runs, a
    # worker that dies meanwhile would end that thread too (CPython: its dict of processes changes size).
    pool._safe_to_dynamically_spawn_children = False  # type: ignore[attr-defined]
    waiting: deque[Future[R]] = deque()
    try:
        for unit in units:
            waiting.append(pool.submit(_run_unit, build, unit))
            if len(waiting) >= AHEAD * workers:
                yield watch.wait_for(waiting.popleft())
        while waiting:
            yield watch.wait_for(waiting.popleft())
    except BaseException as error:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        # a pool that breaks while a unit is being submitted fails with a closed handle
        if isinstance(error, BrokenProcessPool) or (isinstance(error, OSError) and pool._broken):
            raise StylearError(
                "a worker process died, often because the machine ran out of memory",
                hint="use fewer --workers and run the same command again; finished shards are kept",
            ) from error
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _map_in_process(
    build: Callable[[], Callable[[T], R]], units: Iterable[T], on_progress: Report | None
) -> Iterator[R]:
    """Call `build()` once and its result on every unit, in this process."""
    function: Callable[[T], R] | None = None
    before = set_reporter(on_progress or ignore_progress)
    try:
        for unit in units:
            function = function or build()
            yield function(unit)
    finally:
        set_reporter(before)


class CounterWatch:
    """Waits for results and meanwhile reports what the workers added to a shared counter."""

    def __init__(self, counter: Any, on_progress: Report | None) -> None:
        self._counter, self._on_progress, self._reported = counter, on_progress, 0

    def wait_for(self, future: Future[R]) -> R:
        """Wait for a unit and return its result, or raise its exception."""
        while self._on_progress is not None and not future.done():
            wait([future], POLL_S)
            self._report()
        return future.result()

    def _report(self) -> None:
        """Report the increase of the counter."""
        count = self._counter.value
        if count > self._reported and self._on_progress is not None:
            self._on_progress(count - self._reported)
        self._reported = count


def add_to_counter(counter: Any, count: int) -> None:
    """Add to a counter that processes share."""
    with counter.get_lock():
        counter.value += count


def _start_worker(parent: int, gpus: Any, counter: Any) -> None:
    """Set up a worker: take a GPU, report to the counter, leave Ctrl-C to the parent, exit with it."""
    take_gpu(gpus)
    if counter is not None:
        set_reporter(partial(add_to_counter, counter))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    """Exit this process when the parent has ended, on systems whose kernel does not do it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _run_unit(build: Callable[[], Callable[[Any], Any]], unit: Any) -> Any:
    """Run one unit in this worker."""
    global _function
    if _function is None:
        _function = build()
    return _function(unit)
