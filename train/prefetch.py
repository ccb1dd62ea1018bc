"""Work done ahead in threads, in order; and the seconds that a step waits for its batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 2  # batches that are built or being built while a step runs (our choice)


def prefetch(
    build: Callable[[Item], Result], items: Iterable[Item], ahead: int = AHEAD
) -> Generator[tuple[Result, float]]:
    """The result of `build` for each item, in order, with the seconds waited for it (`data_s`).

    One thread builds at most `ahead` results before they are taken.
    """
    results = map_ahead(build, items, ahead=ahead, threads=1)
    try:
        while True:
            start = time.perf_counter()
            try:
                result = next(results)
            except StopIteration:
                return
            yield result, time.perf_counter() - start
    finally:
        results.close()


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int, threads: int
) -> Generator[Result]:
    """The results of items, in order; threads compute at most `ahead` of them before they are taken.

    An error of `function` is raised where its result would have come; results that are not taken are dropped.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    futures: deque[Future[Result]] = deque()
    try:
        for item in items:
            futures.append(pool.submit(function, item))
            if len(futures) > ahead:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
