"""Batches built ahead of their step in a thread, and the seconds that a step waits for its batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Built = TypeVar("Built")
AHEAD = 2  # batches that are built or being built while a step runs (our choice)


def prefetch(
    build: Callable[[Item], Built], items: Iterable[Item], ahead: int = AHEAD
) -> Iterator[tuple[Built, float]]:
    """What `build` makes of each item, in order, with the seconds waited for it (`data_s`).

    One thread builds at most `ahead` results before they are taken. An error of `build` is raised where its
    result would have come; results that are not taken are dropped.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    futures: deque[Future[Built]] = deque()
    remaining = iter(items)

    def take() -> tuple[Built, float]:
        start = time.perf_counter()
        built = futures.popleft().result()
        return built, time.perf_counter() - start

    try:
        for item in remaining:
            futures.append(pool.submit(build, item))
            if len(futures) > ahead:
                yield take()
        while futures:
            yield take()
    finally:
        pool.shutdown(cancel_futures=True)
