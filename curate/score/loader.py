"""Prefetching: threads read and prepare the next items while the model works on the current ones."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(
    items: Iterable[T], prepare: Callable[[T], R], *, threads: int, max_prefetch: int
) -> Generator[R, None, None]:
    """Apply `prepare` to every item in order, in `threads` threads; at most `max_prefetch` are in flight.

    Another thread reads `items`. An exception of reading or preparing is raised at its item's position.
    However the iteration ends, no thread keeps running.
    """
    ready: SimpleQueue[Future[R] | None] = SimpleQueue()
    room, ended = Semaphore(max_prefetch), Event()

    def feed() -> None:
        try:
            for item in items:
                room.acquire()
                if ended.is_set():
                    return
                ready.put(pool.submit(prepare, item))
        except BaseException as error:
            failed: Future[R] = Future()
            failed.set_exception(error)
            ready.put(failed)
        ready.put(None)

    with ThreadPoolExecutor(threads) as pool:
        feeder = Thread(target=feed, daemon=True)
        feeder.start()
        try:
            while (future := ready.get()) is not None:
                yield future.result()
                room.release()
        finally:
            ended.set()
            room.release()
            feeder.join()
            pool.shutdown(cancel_futures=True)
