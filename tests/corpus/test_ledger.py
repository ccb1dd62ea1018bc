"""The ledger and the engine: what is skipped, what stops, what a dead process leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stylear.curate.corpus.ledger import (
    Ledger,
    StageInputs,
    describe_differences,
    fingerprint,
    flatten_settings,
    lock_corpus,
)
from stylear.curate.corpus.storage import write_bytes
from stylear.curate.engine.local import map_units
from stylear.errors import CorpusError, CorpusLocked, SettingsChanged, StylearError


def make_inputs(**changes: Any) -> StageInputs:
    return StageInputs({"image": {"size": 64}, "seed": 0, **changes}, "1", ["aa"], ["ww"])


def commit(
    corpus: Path, stage: str = "fetch", unit: str = "00000", how: StageInputs | None = None
) -> Ledger:
    ledger = Ledger(corpus)
    info = write_bytes(corpus / "raw" / f"{unit}.tar", b"bytes")
    files = {f"raw/{unit}.tar": info}
    ledger.commit(
        stage, unit, how or make_inputs(), rows_in=3, kept=2, dropped={"timeout": 1}, files=files
    )
    return ledger


def test_what_is_committed_is_read_back(tmp_path: Path) -> None:
    ledger = commit(tmp_path)
    entry = ledger.entry("fetch", "00000")
    assert entry is not None
    assert (entry.rows_in, entry.kept, entry.dropped) == (3, 2, {"timeout": 1})
    assert entry.fingerprint == make_inputs().fingerprint
    assert entry.files["raw/00000.tar"]["bytes"] == 5
    assert ledger.stages() == ["fetch"]
    assert ledger.entries("fetch") == [entry]
    assert ledger.entry("fetch", "00001") is None


def test_the_same_commit_gives_the_same_bytes(tmp_path: Path) -> None:
    first = commit(tmp_path / "a").path("fetch", "00000").read_bytes()
    assert commit(tmp_path / "b").path("fetch", "00000").read_bytes() == first


def test_every_part_of_how_decides_the_fingerprint() -> None:
    parts: list[Any] = [{"a": 1, "b": 2}, "1", ["in"], ["w"]]
    base = fingerprint(*parts)
    assert len(base) == 64
    assert fingerprint({"b": 2, "a": 1}, *parts[1:]) == base
    others: list[Any] = [{"a": 1, "b": 3}, "2", ["in", "x"], []]
    changed = {fingerprint(*parts[:i], others[i], *parts[i + 1 :]) for i in range(4)}
    assert len(changed | {base}) == 5


def test_a_unit_is_done_when_made_the_same_way_and_its_files_are_there(tmp_path: Path) -> None:
    ledger = commit(tmp_path)
    assert ledger.is_current("fetch", "00000", make_inputs())
    assert not ledger.is_current("fetch", "00001", make_inputs())
    (tmp_path / "raw" / "00000.tar").write_bytes(b"byte")
    assert not ledger.is_current("fetch", "00000", make_inputs())
    (tmp_path / "raw" / "00000.tar").unlink()
    assert not ledger.is_current("fetch", "00000", make_inputs())


def test_expensive_output_of_other_settings_stops_with_the_difference(tmp_path: Path) -> None:
    ledger = commit(tmp_path)
    with pytest.raises(SettingsChanged, match=r"image\.size: 64 -> 128") as caught:
        ledger.is_current("fetch", "00000", make_inputs(image={"size": 128}))
    assert "--redo fetch" in (caught.value.hint or "")
    assert "another --out" in (caught.value.hint or "")
    with pytest.raises(SettingsChanged, match=r"fetch 00000"):
        ledger.check_settings("fetch", make_inputs(seed=1))
    scored = commit(tmp_path, "score.text", "raw-00000")
    with pytest.raises(SettingsChanged, match="weights") as caught:
        scored.check_settings(
            "score.text", StageInputs(make_inputs().settings, "1", ["aa"], ["other"])
        )
    assert "--redo score" in (caught.value.hint or "")


def test_cheap_output_of_other_settings_is_redone(tmp_path: Path) -> None:
    ledger = commit(tmp_path, "filter", "all")
    assert ledger.is_current("filter", "all", make_inputs())
    assert not ledger.is_current("filter", "all", make_inputs(seed=1))
    ledger.check_settings("filter", make_inputs(seed=1))


def test_differences_are_described_in_words(tmp_path: Path) -> None:
    entry = commit(tmp_path).entries("fetch")[0]
    other = StageInputs({"image": {"size": 64}, "new": [1, {"a": "x"}]}, "2", ["bb"], ["ww"])
    assert describe_differences(entry, other) == [
        "new.0: nothing -> 1",
        'new.1.a: nothing -> "x"',
        "seed: 0 -> nothing",
        "code of the stage: version 1 -> 2",
        "what it is made of has changed since",
    ]
    assert describe_differences(entry, make_inputs()) == []
    assert flatten_settings({"a": {}, "b": []}) == {"a": "{}", "b": "[]"}


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    ledger = commit(tmp_path)
    path = ledger.path("fetch", "00000")
    for text in ("{", "[]", json.dumps({"stage": "fetch"})):
        path.write_text(text)
        with pytest.raises(CorpusError, match=r"00000\.json: expected a ledger entry"):
            ledger.entries("fetch")


def test_a_removed_stage_is_made_again(tmp_path: Path) -> None:
    ledger = commit(tmp_path)
    ledger.remove("fetch")
    assert ledger.stages() == []
    assert not ledger.is_current("fetch", "00000", make_inputs())


# --- the lock ---------------------------------------------------------------------------------

HOLD = "import sys, time; from pathlib import Path; from stylear.curate.corpus.ledger import lock_corpus\n"
HOLD += "with lock_corpus(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_two_processes_never_write_one_corpus_and_a_killed_one_holds_nothing(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(CorpusLocked, match="another process"), lock_corpus(tmp_path):
            pass
        process.kill()
    with lock_corpus(tmp_path):
        pass
    with lock_corpus(tmp_path):
        pass


# --- the engine -------------------------------------------------------------------------------


def square(log: Path) -> Callable[[int], tuple[int, int]]:
    """Built once a worker: notes the process that built it."""
    with log.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return partial(_square, os.getpid())


def _square(pid: int, number: int) -> tuple[int, int]:
    if number == 99:
        raise CorpusError("number 99", hint="take another")
    if number == 98:
        os._exit(1)
    return number * number, pid


def test_units_come_back_in_order_and_models_load_once_a_worker(tmp_path: Path) -> None:
    log = tmp_path / "log"
    results = list(map_units(partial(square, log), range(12), workers=2))
    assert [value for value, _ in results] == [n * n for n in range(12)]
    built = log.read_text().split()
    assert len(built) == len(set(built)) <= 2
    assert str(os.getpid()) not in built


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert list(map_units(partial(square, log), range(3))) == [
        (n * n, os.getpid()) for n in range(3)
    ]
    assert log.read_text().split() == [str(os.getpid())]
    assert list(map_units(partial(square, log), [], workers=1)) == []


def test_errors_of_workers_arrive_whole_and_dead_workers_are_reported(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(CorpusError, match="number 99") as caught:
        list(map_units(partial(square, log), [1, 99, 2], workers=2))
    assert caught.value.hint == "take another"
    with pytest.raises(StylearError, match="a worker process died"):
        list(map_units(partial(square, log), [98], workers=2))


PARENT = """
import sys, time
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_ledger import square
from stylear.curate.engine.local import map_units
log = Path(sys.argv[1])
for _ in map_units(partial(square, log), iter([1, 2, 3]), workers=2):
    print("working", flush=True)
    time.sleep(60)
"""


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    log, folder = tmp_path / "log", str(Path(__file__).parent)
    script = tmp_path / "parent.py"
    script.write_text(f"if __name__ == '__main__':\n    exec({PARENT!r})\n")
    command = [sys.executable, str(script), str(log), folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        workers = [int(pid) for pid in log.read_text().split()]
        assert workers
        process.kill()
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in workers if _alive(pid)] == []


def _alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
