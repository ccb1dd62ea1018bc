"""The Ray engine: units of work as tasks on actors, which load their models once.

A unit whose actor or node dies runs again elsewhere. Tasks go only to actors that run, so that a node
that is gone, and whose place nothing takes, costs speed and not the run.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stylear.curate.engine.local import AHEAD
from stylear.curate.engine.progress import Report, set_reporter
from stylear.errors import StylearError, UsageError

T = TypeVar("T")
R = TypeVar("R")

TRIES = 3  # of a unit that takes its actor or node with it
START_S = 300.0  # without any actor that runs, until the run gives up (ours)
CONNECT_S = 10.0  # for the cluster to answer
POLL_S = 1.0  # one wait for the cluster
REPORT_S = 0.5  # between two reports of a worker


class Worker:
    """The actor: builds the function with its first unit, then runs it on each."""

    def __init__(self, build: Callable[[], Callable[[Any], Any]], counter: Any = None) -> None:
        self._build = build
        self._function: Callable[[Any], Any] | None = None
        self._reporter = CounterReporter(counter)
        if counter is not None:
            set_reporter(self._reporter)

    def ready(self) -> None:
        """Answers once the actor runs."""

    def run(self, unit: Any) -> Any:
        if self._function is None:
            self._function = self._build()
        try:
            return self._function(unit)
        finally:
            self._reporter.send()


class ProgressCounter:
    """The actor that adds up what all workers report."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, count: int) -> None:
        """A worker reported `count` more."""
        self._count += count

    def total(self) -> int:
        """What was reported so far."""
        return self._count


class CounterReporter:
    """Sends what a worker reports to the counter, every REPORT_S seconds and at the end of a unit."""

    def __init__(self, counter: Any) -> None:
        self._counter, self._count, self._sent_at = counter, 0, time.monotonic()

    def __call__(self, count: int) -> None:
        self._count += count
        if time.monotonic() - self._sent_at >= REPORT_S:
            self.send()

    def send(self) -> None:
        """Send what was not sent yet."""
        if self._counter is not None and self._count:
            self._counter.add.remote(self._count)
        self._count, self._sent_at = 0, time.monotonic()


@dataclass(eq=False, slots=True)
class Task:
    """One unit on its way: not sent, with an actor, or done."""

    unit: Any
    tries: int = 0
    done: bool = False
    value: Any = None


@dataclass(eq=False, slots=True)
class Seat:
    """One actor, and the tasks that it was sent, by their references."""

    actor: Any
    starting: Any  # the reference of its first answer; None once it runs
    tasks: dict[Any, Task] = field(default_factory=dict)


def map_units(
    build: Callable[[], Callable[[T], R]],
    units: Iterable[T],
    count: int,
    workers: int = 0,
    *,
    gpu: bool = False,
    address: str | None = None,
    on_progress: Report | None = None,
) -> Iterator[R]:
    """`build()` once an actor, then what it gave on every unit; results in the order of `units`.

    `build`, the units and the results are pickled. `on_progress` is told how many more images the workers
    reported. Raises what a unit raises, UsageError without Ray,
    and StylearError when no cluster answers, no actor starts, or a unit's actor died TRIES times.
    """
    if count < 1:
        return
    with connected(address) as ray:
        resources = ray.cluster_resources()
        there = int(resources.get("GPU" if gpu else "CPU", 0))
        crew = Crew(ray, build, max(1, min(count, workers or there)), gpu, on_progress)
        try:
            waiting: deque[Task] = deque()
            for unit in units:
                waiting.append(crew.add(Task(unit)))
                if len(waiting) >= AHEAD * len(crew.seats):
                    yield crew.result(waiting.popleft())
            while waiting:
                yield crew.result(waiting.popleft())
        finally:
            crew.dismiss()


class Crew:
    """The actors at work. A dead one is replaced, and its tasks are given to those that run."""

    def __init__(
        self,
        ray: Any,
        build: Callable[[], Callable[[Any], Any]],
        size: int,
        gpu: bool,
        on_progress: Report | None = None,
    ) -> None:
        self._ray = ray
        self._on_progress, self._reported, self._asked = on_progress, 0, None
        self._counter = (
            None if on_progress is None else ray.remote(num_cpus=0)(ProgressCounter).remote()
        )
        options = {"num_gpus": 1} if gpu else {"num_cpus": 1}
        self._actor = ray.remote(**options, scheduling_strategy="SPREAD")(Worker)
        self._build = ray.put(build)
        self._queue: deque[Task] = deque()
        self._alive_at = time.monotonic()
        self.seats = [self._hire() for _ in range(size)]

    def add(self, task: Task) -> Task:
        """Queue a task, and send what can be sent."""
        self._queue.append(task)
        self._send()
        return task

    def result(self, task: Task) -> Any:
        """The result of a task; waits for it, and meanwhile looks after all the others."""
        while not task.done:
            references = [ref for seat in self.seats for ref in self._open(seat)]
            ready, _ = self._ray.wait(references, timeout=POLL_S)
            for reference in ready:
                self._settle(reference)
            self._send()
            self._check()
            self._tell_progress()
        return task.value

    def dismiss(self) -> None:
        """End all actors."""
        for seat in self.seats:
            self._ray.kill(seat.actor)
        if self._counter is not None:
            self._ray.kill(self._counter)

    def _tell_progress(self) -> None:
        """Tell how many more images were reported; a counter whose node died is done without."""
        if self._counter is None or self._on_progress is None:
            return
        if self._asked is None:
            self._asked = self._counter.total.remote()
        if not self._ray.wait([self._asked], timeout=0)[0]:
            return
        try:
            count = self._ray.get(self._asked)
        except self._ray.exceptions.RayError:
            self._counter = None
            return
        self._asked = None
        if count > self._reported:
            self._on_progress(count - self._reported)
        self._reported = count

    def _hire(self) -> Seat:
        actor = self._actor.remote(self._build, self._counter)
        return Seat(actor, actor.ready.remote())

    def _open(self, seat: Seat) -> list[Any]:
        """What is awaited of an actor."""
        return [*([] if seat.starting is None else [seat.starting]), *seat.tasks]

    def _send(self) -> None:
        """Give queued tasks to the actors that run and have the fewest, AHEAD each at most."""
        while self._queue:
            free = [s for s in self.seats if s.starting is None and len(s.tasks) < AHEAD]
            if not free:
                return
            seat = min(free, key=lambda s: len(s.tasks))
            task = self._queue.popleft()
            task.tries += 1
            seat.tasks[seat.actor.run.remote(task.unit)] = task

    def _settle(self, reference: Any) -> None:
        """Take an answer. Raises what the unit raised."""
        seat = next((s for s in self.seats if reference in self._open(s)), None)
        if seat is None:  # of an actor that was given up meanwhile
            return
        gone = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except gone.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error  # noqa: B904
        except (gone.RayActorError, gone.ObjectLostError, gone.WorkerCrashedError) as error:
            self._replace(seat, error)
            return
        if seat.starting is reference or seat.starting == reference:
            seat.starting = None
            return
        task = seat.tasks.pop(reference)
        task.done, task.value = True, value

    def _replace(self, seat: Seat, error: Exception) -> None:
        """Another actor for a dead one; the tasks that it had are first in the queue again."""
        self._ray.kill(seat.actor)
        first = True
        for task in reversed(seat.tasks.values()):
            self._queue.appendleft(task)
        for task in seat.tasks.values():
            if not first:
                task.tries -= 1  # it waited behind the one that ran
            elif task.tries >= TRIES:
                raise StylearError(
                    f"a unit of work took its Ray worker with it {TRIES} times:"
                    f" {str(error).splitlines()[0]}",
                    hint="often memory ran out; give the nodes more, or use smaller shards; run the"
                    " same command again to continue, finished shards are kept",
                ) from error
            first = False
        seat.tasks.clear()
        self.seats[self.seats.index(seat)] = self._hire()

    def _check(self) -> None:
        """Raise StylearError when no actor has run for long."""
        if any(seat.starting is None for seat in self.seats):
            self._alive_at = time.monotonic()
        elif time.monotonic() - self._alive_at > START_S:
            raise StylearError(
                f"no Ray worker started within {START_S:.0f} s",
                hint="`ray status` shows whether the cluster has free CPUs and GPUs",
            )


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected: to `address`, to the cluster that RAY_ADDRESS names, or to a new one here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--engine ray: expected the package ray, found none",
            hint="pip install 'stylear[ray]'",
        ) from None
    if ray.is_initialized():
        yield ray
        return
    try:
        _knock(address or os.environ.get("RAY_ADDRESS"))
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise StylearError(
            f"{address or 'ray'}: no Ray cluster answers: {str(error).splitlines()[0]}",
            hint="`ray status` tells the address of a cluster that runs",
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Raise OSError when nothing listens at host:port; Ray itself would wait for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), CONNECT_S).close()
