"""Pin torch's thread count: the last bits of a parallel sum depend on it, and images must not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def pin_thread_count(count: int | None) -> Iterator[None]:
    """Run with `count` torch threads and restore the number afterwards; None changes nothing."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
