"""Batches built ahead: in order, at most so many, errors where their batch would have come."""

from __future__ import annotations

import threading

import pytest

from stylear.train.prefetch import prefetch


def test_results_come_in_order_with_the_seconds_waited_for_each() -> None:
    results = list(prefetch(lambda step: step * step, range(2, 7)))
    assert [built for built, _ in results] == [4, 9, 16, 25, 36]
    assert all(data_s >= 0 for _, data_s in results)


def test_at_most_the_given_number_is_built_before_it_is_taken() -> None:
    built = []
    batches = prefetch(lambda step: built.append(step) or step, range(100), ahead=2)
    assert next(batches)[0] == 0
    batches.close()
    assert built == [0, 1, 2][: len(built)]


def test_the_next_result_is_built_while_one_is_used() -> None:
    started = threading.Event()

    def build(step: int) -> int:
        if step == 1:
            started.set()
        return step

    batches = prefetch(build, range(3))
    next(batches)
    assert started.wait(10)
    batches.close()


def test_an_error_is_raised_in_the_place_of_its_result() -> None:
    batches = prefetch(lambda step: 1 // (2 - step), range(5))
    assert [next(batches)[0], next(batches)[0]] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(batches)
