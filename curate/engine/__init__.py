"""Engines map a function over units of work: the processes of this machine, or a Ray cluster.

An engine decides where work runs, never what comes out: the corpus has the same bytes with either.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from stylear.curate.engine.progress import Report
from stylear.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")

ENGINES = ("local", "ray")


@dataclass(frozen=True, slots=True)
class Engine:
    """Where the units of a stage run."""

    name: str = "local"
    ray_address: str | None = None  # of ray; None: what RAY_ADDRESS names, or a new one here

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise UsageError(f"--engine: expected {' or '.join(ENGINES)}, found {self.name!r}")
        if self.ray_address is not None and self.name != "ray":
            raise UsageError("--ray-address: expected --engine ray with it, found --engine local")

    def map_units(
        self,
        build: Callable[[], Callable[[T], R]],
        units: Iterable[T],
        count: int,
        workers: int = 0,
        *,
        gpu: bool = False,
        on_progress: Report | None = None,
    ) -> Iterator[R]:
        """`build()` once a worker, then what it gave on each of `count` units; results in their order.

        `on_progress` is told how many more images the workers reported (`report_progress`), while their
        units are still running.

        With `workers` of 0 there is one for each core, here or of the cluster; for work on a GPU one
        for each GPU, which is the only one that it sees, and one where there is none. Raises what a
        unit raises, and StylearError when workers die: at once here, after retries on a cluster.
        """
        if self.name == "ray":
            from stylear.curate.engine import ray

            return ray.map_units(
                build,
                units,
                count,
                workers,
                gpu=gpu,
                address=self.ray_address,
                on_progress=on_progress,
            )
        from stylear.curate.engine import gpus, local

        if not gpu:
            several = min(workers or cores(), count)
            return local.map_units(build, units, several, on_progress=on_progress)
        there = gpus.visible_gpus()
        wanted = workers or len(there) or 1
        several = min(wanted, count, len(there) or wanted)
        return local.map_units(build, units, several, there, on_progress)


LOCAL = Engine()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
