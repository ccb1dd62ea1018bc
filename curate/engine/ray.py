"""The Ray engine: runs units of work as tasks on actors, each of which loads its models once.

If an actor or its node dies, its unit is retried on another actor. Tasks are sent only to running actors,
so a node that is lost and never replaced makes a run slower but does not end it.
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

MAX_TRIES = 3  # of a unit whose actor or node dies
START_TIMEOUT_S = 300.0  # a run without a running actor fails after this time (our choice)
CONNECT_TIMEOUT_S = 10.0  # for the cluster to answer
POLL_S = 1.0  # one wait for the cluster
REPORT_S = 0.5  # between two reports of a worker


class Worker:
    """The actor's class: it builds the function for its first unit and calls it for every unit."""

    def __init__(self, build: Callable[[], Callable[[Any], Any]], counter: Any = None) -> None:
        self._build = build
        self._function: Callable[[Any], Any] | None = None
        self._reporter = CounterReporter(counter)
        if counter is not None:
            set_reporter(self._reporter)

    def ready(self) -> None:
        """Return as soon as the actor is running."""

    def run(self, unit: Any) -> Any:
        if self._function is None:
            self._function = self._build()
        try:
            return self._function(unit)
        finally:
            self._reporter.send()


class ProgressCounter:
    """The actor that adds up the reports of all workers."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, count: int) -> None:
        """A worker reported `count` more."""
        self._count += count

    def total(self) -> int:
        """The total of all reports so far."""
        return self._count


class CounterReporter:
    """Sends a worker's reports to the counter, every REPORT_S seconds and at the end of a unit."""

    def __init__(self, counter: Any) -> None:
        self._counter, self._count, self._sent_at = counter, 0, time.monotonic()

    def __call__(self, count: int) -> None:
        self._count += count
        if time.monotonic() - self._sent_at >= REPORT_S:
            self.send()

    def send(self) -> None:
        """Send all pending reports."""
        if self._counter is not None and self._count:
            self._counter.add.remote(self._count)
        self._count, self._sent_at = 0, time.monotonic()


@dataclass(eq=False, slots=True)
class Task:
    """One unit of work: queued, sent to an actor, or done."""

    unit: Any
    tries: int = 0
    done: bool = False
    value: Any = None


@dataclass(eq=False, slots=True)
class ActorState:
    """One actor, and the tasks that it was sent, by their object references."""

    actor: Any
    starting: Any  # the object reference of `ready`; None once the actor is running
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
    """Call `build()` once in each actor and its result on every unit; yield the results in order.

    `build`, the units and the results are pickled. `on_progress` is called with the number of images that
    the workers have newly reported. Raises what a unit raises, UsageError if Ray is not installed, and
    StylearError if no cluster answers, no actor starts, or a unit's actor died too often.
    """
    if count < 1:
        return
    with connect_ray(address) as ray:
        resources = ray.cluster_resources()
        available = int(resources.get("GPU" if gpu else "CPU", 0))
        size = max(1, min(count, workers or available))
        pool = ActorPool(ray, build, size, gpu, on_progress)
        try:
            waiting: deque[Task] = deque()
            for unit in units:
                waiting.append(pool.submit(Task(unit)))
                if len(waiting) >= AHEAD * len(pool.actors):
                    yield pool.wait_for(waiting.popleft())
            while waiting:
                yield pool.wait_for(waiting.popleft())
        finally:
            pool.shut_down()


class ActorPool:
    """A pool of actors. A dead actor is replaced, and its tasks are sent to running ones."""

    def __init__(
        self,
        ray: Any,
        build: Callable[[], Callable[[Any], Any]],
        size: int,
        gpu: bool,
        on_progress: Report | None = None,
    ) -> None:
        self._ray = ray
        self._on_progress, self._reported, self._pending_total = on_progress, 0, None
        self._counter = (
            None if on_progress is None else ray.remote(num_cpus=0)(ProgressCounter).remote()
        )
        options = {"num_gpus": 1} if gpu else {"num_cpus": 1}
        self._actor = ray.remote(**options, scheduling_strategy="SPREAD")(Worker)
        self._build = ray.put(build)
        self._queue: deque[Task] = deque()
        self._alive_at = time.monotonic()
        self.actors = [self._start_actor() for _ in range(size)]

    def submit(self, task: Task) -> Task:
        """Queue a task, and send queued tasks to actors with a free slot."""
        self._queue.append(task)
        self._send()
        return task

    def wait_for(self, task: Task) -> Any:
        """Wait for a task and return its result; meanwhile the results of all others are handled."""
        while not task.done:
            references = [ref for state in self.actors for ref in self._pending(state)]
            ready, _ = self._ray.wait(references, timeout=POLL_S)
            for reference in ready:
                self._receive(reference)
            self._send()
            self._require_running()
            self._report_progress()
        return task.value

    def shut_down(self) -> None:
        """Kill all actors."""
        for state in self.actors:
            self._ray.kill(state.actor)
        if self._counter is not None:
            self._ray.kill(self._counter)

    def _report_progress(self) -> None:
        """Report newly finished images; if the counter's node died, the run continues without progress."""
        if self._counter is None or self._on_progress is None:
            return
        if self._pending_total is None:
            self._pending_total = self._counter.total.remote()
        if not self._ray.wait([self._pending_total], timeout=0)[0]:
            return
        try:
            count = self._ray.get(self._pending_total)
        except self._ray.exceptions.RayError:
            self._counter = None
            return
        self._pending_total = None
        if count > self._reported:
            self._on_progress(count - self._reported)
        self._reported = count

    def _start_actor(self) -> ActorState:
        actor = self._actor.remote(self._build, self._counter)
        return ActorState(actor, actor.ready.remote())

    def _pending(self, state: ActorState) -> list[Any]:
        """The object references that an actor has not answered yet."""
        return [*([] if state.starting is None else [state.starting]), *state.tasks]

    def _send(self) -> None:
        """Send queued tasks to the running actors with the fewest tasks, at most AHEAD to each."""
        while self._queue:
            free = [s for s in self.actors if s.starting is None and len(s.tasks) < AHEAD]
            if not free:
                return
            state = min(free, key=lambda s: len(s.tasks))
            task = self._queue.popleft()
            task.tries += 1
            state.tasks[state.actor.run.remote(task.unit)] = task

    def _receive(self, reference: Any) -> None:
        """Store the result of an actor. Raises the exception of the unit."""
        state = next((s for s in self.actors if reference in self._pending(s)), None)
        if state is None:  # of an actor that has been replaced
            return
        errors = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error  # noqa: B904
        except (errors.RayActorError, errors.ObjectLostError, errors.WorkerCrashedError) as error:
            self._replace_actor(state, error)
            return
        if state.starting is reference or state.starting == reference:
            state.starting = None
            return
        task = state.tasks.pop(reference)
        task.done, task.value = True, value

    def _replace_actor(self, state: ActorState, error: Exception) -> None:
        """Start another actor for a dead one and put its tasks back at the head of the queue."""
        self._ray.kill(state.actor)
        first = True
        for task in reversed(state.tasks.values()):
            self._queue.appendleft(task)
        for task in state.tasks.values():
            if not first:
                task.tries -= 1  # it was only queued behind the task that ran
            elif task.tries >= MAX_TRIES:
                raise StylearError(
                    f"the Ray worker of a unit of work died {MAX_TRIES} times:"
                    f" {str(error).splitlines()[0]}",
                    hint="nodes often run out of memory: use larger ones, or smaller shards; then run the"
                    " same command again, finished shards are kept",
                ) from error
            first = False
        state.tasks.clear()
        self.actors[self.actors.index(state)] = self._start_actor()

    def _require_running(self) -> None:
        """Raise StylearError if no actor has been running for START_TIMEOUT_S."""
        if any(state.starting is None for state in self.actors):
            self._alive_at = time.monotonic()
        elif time.monotonic() - self._alive_at > START_TIMEOUT_S:
            raise StylearError(
                f"no Ray worker started within {START_TIMEOUT_S:.0f} s",
                hint="`ray status` shows whether the cluster has free CPUs and GPUs",
            )


@contextmanager
def connect_ray(address: str | None) -> Iterator[Any]:
    """Connect to the cluster at `address` or RAY_ADDRESS, or start one on this machine.

    Ray itself would join the latest cluster of this machine, and wait for minutes if that has been killed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = address or os.environ.get("RAY_ADDRESS") or "local"
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
        check_address(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise StylearError(
            f"{address}: no Ray cluster answers: {str(error).splitlines()[0]}",
            hint="`ray status` shows the address of a running cluster",
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raise OSError if nothing listens at host:port; Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
