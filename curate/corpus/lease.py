"""The write lock of a corpus in an object store: a renewed lease, because object stores have no file locks.

Each writer creates an object of its own under `.lock/` and then lists the others. A writer that finds
another live lease removes its own and is refused. A listing shows every object written before it, so of two
writers at least one sees the other, and no conditional writes are needed. A lease has expired if it was not
renewed for LEASE_S by the clock of the store, or if its process was one of this machine and no longer runs.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from stylear.curate.corpus.layout import LOCK
from stylear.curate.corpus.object_store import ObjectPath, in_store
from stylear.errors import CorpusLocked

LEASE_S = 60.0
RENEW_S = 15.0
TRIES = 4  # if two writers start at the same moment and see each other
_held: dict[ObjectPath, Lease] = {}  # of this process


@contextmanager
def hold_lease(corpus: ObjectPath) -> Iterator[None]:
    """Hold a corpus of a store for writing. Raises CorpusLocked while another live process does."""
    lease = Lease(corpus)
    lease.acquire()
    _held[corpus] = lease
    try:
        yield
    finally:
        del _held[corpus]
        lease.release()


def current_lease(corpus: object) -> Lease | None:
    """The lease that this process holds on a corpus; None if it holds none."""
    return _held.get(corpus) if in_store(corpus) else None


class Lease:
    """One writer's lease."""

    def __init__(self, corpus: ObjectPath) -> None:
        self.corpus, self.folder = corpus, corpus / LOCK
        self.path = self.folder / f"{uuid.uuid4().hex}.json"
        self.ledger: dict[str, dict[str, str]] | None = None  # stage -> unit -> text of its entry
        self._renewed = time.time()
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def acquire(self) -> None:
        """Take the lease and keep renewing it. Raises CorpusLocked naming the holder."""
        for left in reversed(range(TRIES)):
            self._write()
            living, dead = self.list_others()
            if not living:
                break
            self.path.unlink(missing_ok=True)
            holder = living[0]
            if left == 0 or holder["renewals"] > 0:
                raise CorpusLocked(
                    f"{self.corpus}: {holder['host']} (process {holder['pid']}) is writing this corpus",
                    hint="wait for it to end, or give another --out; a process that died holds it for"
                    f" {LEASE_S:.0f} s at most",
                )
            time.sleep(random.uniform(0.1, 0.5))  # both saw each other: random backoff
        for path in dead:
            path.unlink(missing_ok=True)
        self._thread.start()

    def list_others(self) -> tuple[list[dict[str, Any]], list[ObjectPath]]:
        """The contents of other writers' live leases, and the paths of expired ones."""
        now = self.path.modified()
        living, dead = [], []
        for path in self.folder.files():
            if path == self.path:
                continue
            with suppress(FileNotFoundError):  # released meanwhile
                holder = read_lease(path)
                alive = not is_dead(holder) and age_s(path, now) <= LEASE_S
                living.append(holder) if alive else dead.append(path)
        return living, dead

    def assert_held(self) -> None:
        """Raise CorpusLocked if this process may no longer hold the lease."""
        if self._lost or time.time() - self._renewed > LEASE_S:
            raise CorpusLocked(
                f"{self.corpus}: the lease could not be renewed for {LEASE_S:.0f} s",
                hint="run the same command again; finished shards are kept",
            )

    def release(self) -> None:
        """Release the lease."""
        self._stop.set()
        self._thread.join()
        with suppress(OSError):  # it expires by itself
            self.path.unlink(missing_ok=True)

    def _write(self, renewals: int = 0) -> None:
        holder = {"host": socket.gethostname(), "renewals": renewals, **describe_process()}
        self.path.write_bytes(json.dumps(holder).encode())
        self._renewed = time.time()

    def _renew(self) -> None:
        """Renew until stopped; if late (the machine slept), check whether another writer took over."""
        renewals = 0
        while not self._stop.wait(RENEW_S) and not self._lost:
            renewals += 1
            with suppress(OSError):  # `assert_held` raises if this goes on for too long
                late = time.time() - self._renewed > LEASE_S / 2
                self._write(renewals)
                if late and self.list_others()[0]:
                    self._lost = True
                    self.path.unlink(missing_ok=True)


def read_lease(path: ObjectPath) -> dict[str, Any]:
    """The holder that a lease names; an unknown one if the lease is damaged."""
    unknown = {"host": "another machine", "pid": 0, "renewals": 1}
    try:
        return {**unknown, **json.loads(path.read_bytes())}
    except (ValueError, TypeError):
        return unknown


def age_s(path: ObjectPath, now: datetime) -> float:
    """The age of a lease at `now` in seconds, by the clock of the store."""
    return (now - path.modified()).total_seconds()


def describe_process() -> dict[str, Any]:
    """The facts by which another process of this machine can tell whether this one still runs."""
    return {
        "pid": os.getpid(),
        "machine_id": machine_id(),
        "process_start": process_start(os.getpid()),
    }


def is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine and has ended."""
    this_machine = machine_id()
    if this_machine is None or holder.get("machine_id") != this_machine:
        return False
    return process_start(int(holder["pid"])) != holder.get("process_start")


def machine_id() -> str | None:
    """An id of this boot of the machine and its PID namespace; None if it cannot be read."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def process_start(pid: int) -> str | None:
    """The start of a process in ticks since boot; None if no such process runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state[0] == "Z" else state[19]
