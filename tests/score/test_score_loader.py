"""Prefetching: order, bounds, and an end in every case."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from threading import Event, Semaphore

import pytest

from stylear.curate.score.loader import prefetch


def alive() -> int:
    return threading.active_count()


def test_everything_comes_once_and_in_order() -> None:
    """The first item is ready last."""
    last = Event()

    def prepare(item: int) -> int:
        if item == 0:
            last.wait(10)
        if item == 3:
            last.set()
        return item * item

    results = list(prefetch(range(50), prepare, threads=4, max_prefetch=8))
    assert results == [n * n for n in range(50)]
    assert list(prefetch([], prepare, threads=2, max_prefetch=2)) == []


def test_no_more_is_read_than_may_wait() -> None:
    read: list[int] = []
    seen = Semaphore(0)

    def items() -> Iterator[int]:
        for item in range(20):
            read.append(item)
            seen.release()
            yield item

    loaded = prefetch(items(), lambda item: item, threads=2, max_prefetch=4)
    assert next(loaded) == 0
    for _ in range(5):  # four wait, and one more was read and finds no room
        assert seen.acquire(timeout=10)
    assert not seen.acquire(timeout=0.2)
    assert read == [0, 1, 2, 3, 4]
    loaded.close()


def test_while_one_is_used_the_next_are_prepared() -> None:
    prepared = Semaphore(0)

    def prepare(item: int) -> int:
        prepared.release()
        return item

    loaded = prefetch(range(9), prepare, threads=1, max_prefetch=3)
    next(loaded)
    for _ in range(3):
        assert prepared.acquire(timeout=10)
    loaded.close()


@pytest.mark.parametrize("place", ["reading", "preparing"])
def test_what_fails_is_raised_at_its_turn_and_no_thread_stays(place: str) -> None:
    before = alive()

    def items() -> Iterator[int]:
        for item in range(9):
            if item == 4 and place == "reading":
                raise KeyError(item)
            yield item

    def prepare(item: int) -> int:
        if item == 4 and place == "preparing":
            raise KeyError(item)
        return item

    results: list[int] = []
    with pytest.raises(KeyError, match="4"):
        results.extend(prefetch(items(), prepare, threads=2, max_prefetch=9))
    assert results == [0, 1, 2, 3]
    assert alive() == before


def test_whoever_stops_early_leaves_no_thread_behind() -> None:
    before = alive()
    loaded = prefetch(range(10**9), lambda item: item, threads=3, max_prefetch=5)
    assert [next(loaded), next(loaded)] == [0, 1]
    loaded.close()
    assert alive() == before
