"""Claims about the lease of a corpus in a store: one writer at a time, and a dead one blocks nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest
from builders.faulty_store import Proxy

from stylear.curate.corpus import lease
from stylear.curate.corpus.ledger import Ledger, StageInputs, lock_corpus
from stylear.curate.corpus.object_store import ObjectPath
from stylear.errors import (
    CorpusLocked,
)

pytestmark = pytest.mark.alone


def test_a_second_writer_is_refused_while_the_first_lives(store: ObjectPath) -> None:
    corpus = cast(Path, store)
    with lock_corpus(corpus):
        with (
            pytest.raises(CorpusLocked, match=f"process {os.getpid()}\\) is writing"),
            lock_corpus(corpus),
        ):
            pass
        with lock_corpus(cast(Path, store / "beside")):
            pass
    with lock_corpus(corpus):
        pass
    assert store.files() == []


def test_of_writers_that_begin_together_never_two_hold_the_corpus(store: ObjectPath) -> None:
    inside, most, refused, held = 0, 0, 0, 0
    guard, gate = threading.Lock(), threading.Barrier(4)

    def write() -> None:
        nonlocal inside, most, refused, held
        own_lease = lease.Lease(store)
        gate.wait()
        try:
            own_lease.acquire()
        except CorpusLocked:
            with guard:
                refused += 1
            return
        with guard:
            inside, held = inside + 1, held + 1
            most = max(most, inside)
        time.sleep(0.3)
        with guard:
            inside -= 1
        own_lease.release()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 1
    assert held + refused == 4
    assert store.files() == []


def test_a_lease_that_is_not_renewed_ends_and_is_taken_over(
    store: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = store / ".lock" / "other.json"
    other.write_bytes(
        json.dumps({"host": "far", "pid": 7, "machine_id": "m", "renewals": 3}).encode()
    )
    monkeypatch.setattr(lease, "age_s", lambda *_: lease.LEASE_S)
    with (
        pytest.raises(CorpusLocked, match=r"far \(process 7\) is writing"),
        lock_corpus(cast(Path, store)),
    ):
        pass
    assert store.files() == [other]
    monkeypatch.setattr(lease, "age_s", lambda *_: lease.LEASE_S + 1)
    with lock_corpus(cast(Path, store)):
        assert other not in store.files()
    assert store.files() == []


def test_a_lease_of_a_dead_process_of_this_machine_ends_at_once(store: ObjectPath) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = {"host": "here", "pid": child.pid, "machine_id": lease.machine_id(), "renewals": 1}
    holder["process_start"] = lease.process_start(child.pid)
    path = store / ".lock" / "child.json"
    path.write_bytes(json.dumps(holder).encode())
    with pytest.raises(CorpusLocked, match=r"here \(process"), lock_corpus(cast(Path, store)):
        pass
    child.kill()
    child.communicate()
    with lock_corpus(cast(Path, store)):
        assert path not in store.files()


def test_a_damaged_lease_holds_until_it_ends(store: ObjectPath) -> None:
    (store / ".lock" / "x.json").write_bytes(b"[not json")
    with pytest.raises(CorpusLocked, match="another machine"), lock_corpus(cast(Path, store)):
        pass


def test_who_could_not_renew_commits_nothing_more(
    store: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, inputs = Ledger(cast(Path, store)), StageInputs({"a": 1}, "1")
    counts: dict[str, Any] = {"rows_in": 1, "kept": 1, "dropped": {}, "files": {}}
    with lock_corpus(cast(Path, store)):
        ledger.commit("fetch", "00000", inputs, **counts)
        clock = time.time()
        monkeypatch.setattr(lease.time, "time", lambda: clock + lease.LEASE_S + 1)
        with pytest.raises(CorpusLocked, match="could not be renewed"):
            ledger.commit("fetch", "00001", inputs, **counts)
    assert [entry.unit for entry in ledger.entries("fetch")] == ["00000"]


def test_a_holder_renews_and_notices_that_another_took_over(
    store: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    own_lease = lease.Lease(store)
    own_lease.acquire()
    deadline = time.monotonic() + 20
    while lease.read_lease(own_lease.path)["renewals"] < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lease.read_lease(own_lease.path)["renewals"] >= 2
    own_lease.assert_held()
    (store / ".lock" / "other.json").write_bytes(b'{"host": "far", "machine_id": "m"}')
    own_lease._renewed -= lease.LEASE_S  # it slept
    while own_lease.path.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(CorpusLocked, match="could not be renewed"):
        own_lease.assert_held()
    own_lease.release()


def test_the_ledger_of_a_held_store_is_read_once(store: ObjectPath, proxy: Proxy) -> None:
    ledger, inputs = Ledger(cast(Path, store)), StageInputs({"a": 1}, "1")
    counts: dict[str, Any] = {"rows_in": 1, "kept": 1, "dropped": {}, "files": {}}
    for number in range(3):
        ledger.commit("fetch", f"{number:05d}", inputs, **counts)
    with lock_corpus(cast(Path, store)):
        ledger.commit("mix", "all", inputs, **counts)
        proxy.reset()
        assert [entry.unit for entry in ledger.entries("fetch")] == ["00000", "00001", "00002"]
        assert ledger.stages() == ["fetch", "mix"]
        assert ledger.is_current("fetch", "00001", inputs)
        assert ledger.entry("fetch", "00009") is None
        assert proxy.seen["GET"] == 0
        ledger.remove("fetch")
        assert ledger.stages() == ["mix"]
    assert ledger.stages() == ["mix"]
