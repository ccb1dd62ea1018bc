"""Prefetching: threads read and prepare what comes next, while the model works on what is there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(
    items: Iterable[T], prepare: Callable[[T], R], *, threads: int, most: int
) -> Generator[R, None, None]:
    """`prepare` of every item, in order, done by `threads` threads for up to `most` items ahead.

    Another thread reads `items`. Raises what reading or preparing raises, at the item's turn; however
    the iteration ends, no thread goes on.
    """
    ready: SimpleQueue[Future[R] | None] = SimpleQueue()
    room, ended = Semaphore(most), Event()

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
