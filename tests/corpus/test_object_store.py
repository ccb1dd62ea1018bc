"""A corpus in an object store: the same bytes as on a disk, through faults, kills and second writers."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from builders.faulty_store import BUCKET, SECRET, Proxy, faulty_store
from builders.pictures_folder import make_folders, make_recipe, tree, write_recipe
from typer.testing import CliRunner

import stylear.curate.cli
import stylear.train.cli
from stylear.curate import run as runner
from stylear.curate.audit.auditor import audit
from stylear.curate.corpus import lease
from stylear.curate.corpus import local_copies as copies
from stylear.curate.corpus import object_store as objects
from stylear.curate.corpus import store_client as client
from stylear.curate.corpus.ledger import Ledger, StageInputs, lock_corpus
from stylear.curate.corpus.local_copies import LocalCopies
from stylear.curate.corpus.object_store import ObjectPath, corpus_path
from stylear.curate.corpus.parquet import file_sha256, read_table
from stylear.curate.corpus.shards import read_samples, shard_paths
from stylear.curate.corpus.storage import (
    AtomicFile,
    FileInfo,
    remove_path,
    work_folder,
    write_bytes,
)
from stylear.curate.recipe import Recipe
from stylear.errors import (
    AuditFailed,
    CorpusError,
    CorpusLocked,
    StorageError,
    StoreFailed,
    StylearError,
    UsageError,
)

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    make_folders(root)
    write_recipe(root)
    return root


@pytest.fixture(scope="module")
def recipe(home: Path) -> Recipe:
    return make_recipe(home)


@pytest.fixture(scope="module")
def expected(home: Path, recipe: Recipe) -> dict[str, bytes]:
    """Every file of the corpus as it is made on the disk."""
    runner.run(recipe, home / "local", workers=1)
    return tree(home / "local")


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with faulty_store() as found, pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "BACKOFF_S", (0.01, 0.2))
        patch.setattr(client, "RETRIES", 3)
        patch.setattr(client, "PAUSES_S", (0.01, 0.05, 0.1))
        client.open_filesystem.cache_clear()
        yield found
        client.open_filesystem.cache_clear()


@pytest.fixture
def store(proxy: Proxy, request: pytest.FixtureRequest) -> ObjectPath:
    """An empty place, without faults until the test asks for them."""
    proxy.reset()
    return cast(ObjectPath, corpus_path(f"s3://{BUCKET}/{request.node.name}"))


@pytest.fixture(scope="module")
def finished(
    proxy: Proxy, recipe: Recipe, expected: dict[str, bytes]
) -> tuple[Path, dict[str, int]]:
    """The corpus, built while every eighth request failed in some way, and the faults that it met."""
    corpus = corpus_path(f"s3://{BUCKET}/team/corpus")
    proxy.reset(share=0.125, seed=3)
    runner.run(recipe, corpus, workers=1)
    faults = {name: proxy.seen[name] for name in ("500", "503", "slow", "cut", "dropped")}
    proxy.reset()
    return corpus, faults


def objects_of(corpus: Path) -> dict[str, bytes]:
    files = cast(ObjectPath, corpus).files()
    return {path.relative_to(cast(Any, corpus)).as_posix(): path.read_bytes() for path in files}


def check(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


# --- the same corpus --------------------------------------------------------------------------


def test_the_corpus_has_the_same_bytes_through_500s_slow_reads_and_dropped_connections(
    finished: tuple[Path, dict[str, int]], expected: dict[str, bytes]
) -> None:
    corpus, faults = finished
    check(objects_of(corpus), expected)
    assert min(faults.values()) > 0
    assert {"manifest.json", "report/index.html", "train/00000.tar"} <= set(expected)


def test_a_corpus_made_on_ray_has_the_same_bytes(
    home: Path, store: ObjectPath, expected: dict[str, bytes]
) -> None:
    command = [sys.executable, "-m", "stylear", "curate", "run", str(home / "recipe.yaml")]
    command += ["--out", str(store), "--engine", "ray", "--workers", "2", "--json"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    check(objects_of(cast(Path, store)), expected)


def test_a_second_run_uploads_nothing_but_lease_manifest_and_report(
    finished: tuple[Path, dict[str, int]], recipe: Recipe, proxy: Proxy
) -> None:
    proxy.reset()
    done = runner.run(recipe, finished[0], workers=1)
    assert {result.new for result in done.results} == {0}
    written = {name.rpartition("/")[2] for name in proxy.seen if name.startswith("PUT /")}
    assert {name for name in written if len(name) != len(f"{'0' * 32}.json")} == {
        "manifest.json",
        "index.html",
    }


def test_the_audit_finds_a_flipped_and_a_missing_object(
    finished: tuple[Path, dict[str, int]],
) -> None:
    corpus = finished[0]
    assert audit(corpus).passed
    path = cast(ObjectPath, corpus / "train" / "00000.tar")
    good = path.read_bytes()
    path.write_bytes(good[:2000] + bytes([good[2000] ^ 1]) + good[2001:])
    with pytest.raises(AuditFailed, match=r"train/00000\.tar: expected sha256"):
        audit(corpus).require()
    path.unlink()
    kinds = {(one.kind, one.where) for one in audit(corpus).differences}
    assert kinds == {("missing", "train/00000.tar")}
    path.write_bytes(good)
    assert audit(corpus).passed


def test_the_trainer_reads_the_same_samples(
    finished: tuple[Path, dict[str, int]], home: Path, expected: dict[str, bytes]
) -> None:
    for split in ("train", "val"):
        here = list(read_samples(home / "local" / split))
        assert list(read_samples(finished[0] / split)) == here
        assert here
        shards = shard_paths(finished[0] / split)
        assert [file_sha256(path) for path in shards] == [
            file_sha256(path) for path in shard_paths(home / "local" / split)
        ]


def test_train_encode_takes_a_corpus_url(
    finished: tuple[Path, dict[str, int]], home: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    from builders.tiny_model import write_tiny_model

    write_tiny_model(tmp_path / "model")
    made = []
    for number, corpus in enumerate((str(finished[0]), str(home / "local"))):
        out = tmp_path / str(number)
        words = ["encode", "--corpus", corpus, "--model", str(tmp_path / "model")]
        result = CliRunner().invoke(
            stylear.train.cli.app, [*words, "--out", str(out), "--device", "cpu", "--json"]
        )
        assert result.exit_code == 0, result.output
        made.append(tree(out))
    assert made[0] == made[1]
    assert made[0]


def test_audit_and_report_are_commands_on_a_url(
    finished: tuple[Path, dict[str, int]], expected: dict[str, bytes]
) -> None:
    corpus = str(finished[0])
    told = CliRunner().invoke(stylear.curate.cli.app, ["audit", corpus, "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["corpus"] == corpus
    told = CliRunner().invoke(stylear.curate.cli.app, ["report", corpus, "--json"])
    assert json.loads(told.stdout) == {"report": f"{corpus}/report/index.html"}
    assert (finished[0] / "report" / "index.html").read_bytes() == expected["report/index.html"]


def test_any_other_fsspec_store_gives_the_same_bytes(
    recipe: Recipe, expected: dict[str, bytes]
) -> None:
    corpus = corpus_path("memory://a/corpus")
    runner.run(recipe, corpus, workers=4)  # no other process would see this memory
    check(objects_of(corpus), expected)
    remove_path(corpus)
    assert objects_of(corpus) == {}


# --- what a kill leaves -----------------------------------------------------------------------


def test_killed_and_started_again_the_corpus_is_the_same(
    store: ObjectPath, home: Path, recipe: Recipe, expected: dict[str, bytes], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", "from stylear.cli import main; main()", "curate", "run"]
    command += [str(home / "recipe.yaml"), "--out", str(store), "--workers", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, start_new_session=True
    )
    entry = store / "ledger" / "synthesize" / "00001.json"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not entry.is_file():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    told = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, told
    assert entry.is_file()
    left = objects_of(cast(Path, store))
    assert "manifest.json" not in left
    assert len([name for name in left if name.startswith(".lock/")]) == 1
    for name, data in left.items():  # what is there is whole
        assert name.startswith(".lock/") or data == expected[name]
        assert SECRET.encode() not in data
    assert SECRET not in told
    done = runner.run(recipe, cast(Path, store), workers=1)  # at once: the dead hold nothing
    made = {result.stage: result.new for result in done.results}
    assert made["fetch"] == 0
    assert made["synthesize"] <= 2
    check(objects_of(cast(Path, store)), expected)


def break_off(path: Path) -> None:
    with AtomicFile(path) as out:
        out.write(b"half")
        raise ZeroDivisionError


def test_an_object_appears_whole_or_not_at_all(store: ObjectPath, tmp_path: Path) -> None:
    path = cast(Path, store / "raw" / "00000.tar")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        with pytest.raises(ZeroDivisionError):
            break_off(path)
        assert not path.is_file()
        with AtomicFile(path) as out:
            out.write(b"whole")
            assert not path.is_file()
        assert path.read_bytes() == b"whole"
        assert FileInfo.of(path) == out.info
        assert list(tmp_path.iterdir()) == []


def test_a_store_that_stays_broken_is_told_and_not_waited_for_without_end(
    store: ObjectPath, proxy: Proxy
) -> None:
    path = cast(Path, store / "recipe.yaml")
    proxy.reset(share=1.0, only="503")
    with pytest.raises(StorageError, match=r"recipe\.yaml: cannot write: .*503") as caught:
        write_bytes(path, b"name: x")
    assert "run the same command again" in (caught.value.hint or "")
    assert proxy.seen["PUT"] == (1 + client.RETRIES) * (1 + len(client.PAUSES_S))
    with pytest.raises(CorpusError, match="503"):
        FileInfo.of(path)
    with pytest.raises(CorpusError, match=r"expected a readable parquet file, found: .*503"):
        read_table(path)
    proxy.reset()
    assert not path.is_file()


def test_a_run_on_a_store_that_does_not_answer_or_has_no_bucket_ends_with_one_line(
    store: ObjectPath, proxy: Proxy, home: Path
) -> None:
    words = ["run", str(home / "recipe.yaml"), "--out"]
    told = (
        CliRunner().invoke(stylear.curate.cli.app, [*words, "s3://nowhere-at-all/corpus"]).exception
    )
    assert isinstance(told, StorageError)
    assert told.message == (
        "s3://nowhere-at-all/corpus: the object store failed: the store has no such bucket"
    )
    proxy.reset(share=1.0, only="500")
    for command in (words, ["audit"], ["report"]):
        told = CliRunner().invoke(stylear.curate.cli.app, [*command, str(store)]).exception
        assert isinstance(told, StylearError), command
        assert "500" in told.message
    proxy.reset()


def test_a_failure_of_a_store_comes_back_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(StoreFailed("s3://b/x", "503")))
    assert (error.message, error.strerror) == ("s3://b/x: the object store failed: 503", "503")


def test_a_bucket_that_is_not_there_is_told(proxy: Proxy) -> None:
    proxy.reset()
    with pytest.raises(
        StorageError, match="s3://nowhere-at-all/x: cannot write: the store has no such bucket"
    ):
        write_bytes(corpus_path("s3://nowhere-at-all/x"), b"data")


# --- one writer -------------------------------------------------------------------------------


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
        one = lease.Lease(store)
        gate.wait()
        try:
            one.acquire()
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
        one.release()

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
    told = {"host": "here", "pid": child.pid, "machine_id": lease.machine_id(), "renewals": 1}
    told["process_start"] = lease.process_start(child.pid)
    path = store / ".lock" / "child.json"
    path.write_bytes(json.dumps(told).encode())
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
    ledger, made = Ledger(cast(Path, store)), StageInputs({"a": 1}, "1")
    counts: dict[str, Any] = {"rows_in": 1, "kept": 1, "dropped": {}, "files": {}}
    with lock_corpus(cast(Path, store)):
        ledger.commit("fetch", "00000", made, **counts)
        clock = time.time()
        monkeypatch.setattr(lease.time, "time", lambda: clock + lease.LEASE_S + 1)
        with pytest.raises(CorpusLocked, match="could not be renewed"):
            ledger.commit("fetch", "00001", made, **counts)
    assert [entry.unit for entry in ledger.entries("fetch")] == ["00000"]


def test_a_holder_renews_and_notices_that_another_took_over(
    store: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    one = lease.Lease(store)
    one.acquire()
    deadline = time.monotonic() + 20
    while lease.read_lease(one.path)["renewals"] < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lease.read_lease(one.path)["renewals"] >= 2
    one.require()
    (store / ".lock" / "other.json").write_bytes(b'{"host": "far", "machine_id": "m"}')
    one._renewed -= lease.LEASE_S  # it slept
    while one.path.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(CorpusLocked, match="could not be renewed"):
        one.require()
    one.release()


def test_the_ledger_of_a_held_store_is_read_once(store: ObjectPath, proxy: Proxy) -> None:
    ledger, made = Ledger(cast(Path, store)), StageInputs({"a": 1}, "1")
    counts: dict[str, Any] = {"rows_in": 1, "kept": 1, "dropped": {}, "files": {}}
    for number in range(3):
        ledger.commit("fetch", f"{number:05d}", made, **counts)
    with lock_corpus(cast(Path, store)):
        ledger.commit("mix", "all", made, **counts)
        proxy.reset()
        assert [entry.unit for entry in ledger.entries("fetch")] == ["00000", "00001", "00002"]
        assert ledger.stages() == ["fetch", "mix"]
        assert ledger.is_current("fetch", "00001", made)
        assert ledger.entry("fetch", "00009") is None
        assert proxy.seen["GET"] == 0
        ledger.remove("fetch")
        assert ledger.stages() == ["mix"]
    assert ledger.stages() == ["mix"]


# --- reading ----------------------------------------------------------------------------------


def test_a_large_object_is_read_in_blocks_whatever_happens_on_the_way(
    store: ObjectPath, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "BLOCK_BYTES", 100_000)
    data = bytes(range(256)) * 4000
    path = store / "big"
    path.write_bytes(data)
    proxy.reset(share=0.5, seed=5)
    with path.open() as stream:
        assert b"".join(iter(lambda: stream.read(30_000), b"")) == data
        assert stream.seek(-10, os.SEEK_END) == len(data) - 10
        assert stream.read() == data[-10:]
        assert stream.seek(500_000) == 500_000
        assert stream.read(7) == data[500_000:500_007]
    assert FileInfo.of(cast(Path, path)).bytes == len(data)
    assert sum(proxy.seen[name] for name in ("500", "503", "cut", "dropped")) > 3


def test_a_large_object_goes_up_in_parts_and_is_seen_when_all_are_there(
    store: ObjectPath, proxy: Proxy
) -> None:
    path = store / "raw" / "00000.tar"
    data = os.urandom(1 << 20) * 12
    proxy.reset(share=0.3, seed=1)
    with AtomicFile(cast(Path, path)) as out:
        out.write(data)
    assert proxy.seen["PUT"] > 2  # parts
    assert sum(proxy.seen[name] for name in ("500", "503", "cut", "dropped")) > 0
    proxy.reset()
    assert path.read_bytes() == data


def test_an_empty_object_reads_as_empty(store: ObjectPath) -> None:
    (store / "empty").write_bytes(b"")
    assert (store / "empty").open().read() == b""
    assert (store / "empty").size() == 0


def test_pictures_read_here_and_there_cost_one_request_a_shard_and_little_room(
    store: ObjectPath, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (store / name).write_bytes(bytes(range(200)))
    proxy.reset()
    near = LocalCopies()
    read = [near.read(cast(Path, store / name), at, 3) for at in (7, 90, 150) for name in "ab"]
    assert read == [bytes(range(at, at + 3)) for at in (7, 90, 150) for _ in "ab"]
    assert proxy.seen["GET"] == 2
    monkeypatch.setattr(copies, "SHARE_OF_FREE", 0.0)  # no room at all
    far = LocalCopies()
    assert far.read(cast(Path, store / "a"), 90, 3) == bytes(range(90, 93))
    with far.open(cast(Path, store / "a")) as stream:
        assert stream.read() == bytes(range(200))


# --- URLs -------------------------------------------------------------------------------------


def test_a_path_is_a_path_and_a_url_is_a_place_in_a_store(proxy: Proxy) -> None:
    assert corpus_path("a/b") == Path("a/b")
    assert corpus_path("file:///a/b") == Path("/a/b")
    assert corpus_path(Path("x")) == Path("x")
    place = corpus_path("s3://bucket//team/corpus/")
    assert str(place) == "s3://bucket/team/corpus"
    assert str(place / "raw" / "00000.tar") == "s3://bucket/team/corpus/raw/00000.tar"
    assert (place.name, place.parent.name) == ("corpus", "team")
    assert str((place / "00000.tar").with_suffix(".parquet")).endswith("/corpus/00000.parquet")
    assert corpus_path(str(place)) == place


@pytest.mark.parametrize(
    "url", ["s3://AKIA:wJalr/XUt+n@bucket/corpus", "sftp://me:pass@host/corpus"]
)
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="expected no password in the URL") as caught:
        corpus_path(url)
    told = f"{caught.value.message} {caught.value.hint}"
    assert "wJalr" not in told
    assert "XUt" not in told
    assert "pass@" not in told
    assert "environment" in told


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s4://bucket/corpus", "expected a protocol such as s3"),
        ("s3://", "found no place in the store"),
        ("sftp://host/corpus", "no client for it is installed"),
    ],
)
def test_a_url_that_cannot_be_a_corpus_is_told(url: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        corpus_path(url)


def test_downloads_of_a_store_lie_in_the_cache_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, two = (work_folder(corpus_path(f"memory://{name}/corpus")) for name in "ab")
    assert one.parent == two.parent == tmp_path / "stylear" / "work"
    assert one != two
    assert work_folder(tmp_path) == tmp_path / ".work"
