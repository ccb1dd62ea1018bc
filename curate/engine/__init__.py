"""Engines map a function over units of work, in processes of this machine or on a Ray cluster.

An engine decides where work runs, never its results: the corpus has the same bytes with either.
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
    ray_address: str | None = None  # default: RAY_ADDRESS, or a new cluster on this machine

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
        """Call `build()` once in each worker and its result on each unit; yield the results in order.

        `on_progress` is called with the number of images that the workers have newly reported
        (`report_progress`), while their units are still running.

        `workers` 0 means one for each core of the machine or cluster. For GPU work it means one for each
        GPU, each seeing only its own, or a single worker without GPUs. Raises what a unit raises, and
        StylearError if workers die: at once on this machine, after retries on a cluster.
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
            size = min(workers or cores(), count)
            return local.map_units(build, units, size, on_progress=on_progress)
        visible = gpus.visible_gpus()
        limit = workers or len(visible) or 1
        size = min(limit, count, len(visible) or limit)
        return local.map_units(build, units, size, visible, on_progress)


LOCAL = Engine()


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
