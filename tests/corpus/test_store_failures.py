"""Claims about a store that fails: kills, broken uploads and broken stores leave a corpus that can go on."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import pytest
from builders.faulty_store import SECRET, Proxy
from builders.store_objects import check, objects_of
from typer.testing import CliRunner

import stylear.curate.cli
import stylear.train.cli
from stylear.curate import run as runner
from stylear.curate.corpus import store_client as client
from stylear.curate.corpus.object_store import ObjectPath, corpus_path
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.storage import (
    AtomicFile,
    FileInfo,
    write_bytes,
)
from stylear.curate.recipe import Recipe
from stylear.errors import (
    CorpusError,
    StorageError,
    StoreFailed,
    StylearError,
)

pytestmark = pytest.mark.alone


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
    output = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, output
    assert entry.is_file()
    left = objects_of(cast(Path, store))
    assert "manifest.json" not in left
    assert len([name for name in left if name.startswith(".lock/")]) == 1
    for name, data in left.items():  # what is there is whole
        assert name.startswith(".lock/") or data == expected[name]
        assert SECRET.encode() not in data
    assert SECRET not in output
    done = runner.run(recipe, cast(Path, store), workers=1)  # at once: the dead hold nothing
    new = {result.stage: result.new for result in done.results}
    assert new["fetch"] == 0
    assert new["synthesize"] <= 2
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


def test_a_store_that_stays_broken_is_reported_after_a_bounded_wait(
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
    error = (
        CliRunner().invoke(stylear.curate.cli.app, [*words, "s3://nowhere-at-all/corpus"]).exception
    )
    assert isinstance(error, StorageError)
    assert error.message == (
        "s3://nowhere-at-all/corpus: the object store failed: the store has no such bucket"
    )
    proxy.reset(share=1.0, only="500")
    for command in (words, ["audit"], ["report"]):
        error = CliRunner().invoke(stylear.curate.cli.app, [*command, str(store)]).exception
        assert isinstance(error, StylearError), command
        assert "500" in error.message
    proxy.reset()


def test_a_failure_of_a_store_comes_back_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(StoreFailed("s3://b/x", "503")))
    assert (error.message, error.strerror) == ("s3://b/x: the object store failed: 503", "503")


def test_a_missing_bucket_is_named(proxy: Proxy) -> None:
    proxy.reset()
    with pytest.raises(
        StorageError, match="s3://nowhere-at-all/x: cannot write: the store has no such bucket"
    ):
        write_bytes(corpus_path("s3://nowhere-at-all/x"), b"data")
