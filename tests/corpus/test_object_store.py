"""A corpus in an object store: the same bytes as on a disk, through faults, kills and second writers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from builders.faulty_store import Proxy
from builders.pictures_folder import tree
from builders.store_objects import check, objects_of
from typer.testing import CliRunner

import stylear.curate.cli
import stylear.train.cli
from stylear.curate import run as runner
from stylear.curate.audit.auditor import audit
from stylear.curate.corpus.object_store import ObjectPath, corpus_path
from stylear.curate.corpus.parquet import file_sha256
from stylear.curate.corpus.shards import read_samples, shard_paths
from stylear.curate.corpus.storage import (
    remove_path,
)
from stylear.curate.recipe import Recipe
from stylear.errors import (
    AuditFailed,
)

pytestmark = pytest.mark.alone


def test_the_corpus_has_the_same_bytes_through_500s_slow_reads_and_dropped_connections(
    stored: tuple[Path, dict[str, int]], expected: dict[str, bytes]
) -> None:
    corpus, faults = stored
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
    stored: tuple[Path, dict[str, int]], recipe: Recipe, proxy: Proxy
) -> None:
    proxy.reset()
    done = runner.run(recipe, stored[0], workers=1)
    assert {result.new for result in done.results} == {0}
    written = {name.rpartition("/")[2] for name in proxy.seen if name.startswith("PUT /")}
    assert {name for name in written if len(name) != len(f"{'0' * 32}.json")} == {
        "manifest.json",
        "index.html",
        "pairs.html",
        *(f"{name}.js" for name in ("corpus", "rows", "scores", "texts-0", "histories-0")),
    }


def test_the_audit_finds_a_flipped_and_a_missing_object(
    stored: tuple[Path, dict[str, int]],
) -> None:
    corpus = stored[0]
    assert audit(corpus).passed
    path = cast(ObjectPath, corpus / "train" / "00000.tar")
    good = path.read_bytes()
    path.write_bytes(good[:2000] + bytes([good[2000] ^ 1]) + good[2001:])
    with pytest.raises(AuditFailed, match=r"train/00000\.tar: expected sha256"):
        audit(corpus).require()
    path.unlink()
    kinds = {(difference.kind, difference.where) for difference in audit(corpus).differences}
    assert kinds == {("missing", "train/00000.tar")}
    path.write_bytes(good)
    assert audit(corpus).passed


def test_the_trainer_reads_the_same_samples(
    stored: tuple[Path, dict[str, int]], home: Path, expected: dict[str, bytes]
) -> None:
    for split in ("train", "val"):
        local = list(read_samples(home / "local" / split))
        assert list(read_samples(stored[0] / split)) == local
        assert local
        shards = shard_paths(stored[0] / split)
        assert [file_sha256(path) for path in shards] == [
            file_sha256(path) for path in shard_paths(home / "local" / split)
        ]


def test_train_encode_takes_a_corpus_url(
    stored: tuple[Path, dict[str, int]], home: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    from builders.tiny_model import write_tiny_model

    write_tiny_model(tmp_path / "model")
    encoded = []
    for number, corpus in enumerate((str(stored[0]), str(home / "local"))):
        out = tmp_path / str(number)
        words = ["encode", corpus, "--model", str(tmp_path / "model")]
        result = CliRunner().invoke(
            stylear.train.cli.app, [*words, "--out", str(out), "--device", "cpu", "--json"]
        )
        assert result.exit_code == 0, result.output
        encoded.append(tree(out))
    assert encoded[0] == encoded[1]
    assert encoded[0]


def test_audit_and_report_are_commands_on_a_url(
    stored: tuple[Path, dict[str, int]], expected: dict[str, bytes]
) -> None:
    corpus = str(stored[0])
    result = CliRunner().invoke(stylear.curate.cli.app, ["audit", corpus, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["corpus"] == corpus
    result = CliRunner().invoke(stylear.curate.cli.app, ["report", corpus, "--json"])
    assert json.loads(result.stdout) == {"report": f"{corpus}/report/index.html"}
    assert (stored[0] / "report" / "index.html").read_bytes() == expected["report/index.html"]


def test_any_other_fsspec_store_gives_the_same_bytes(
    recipe: Recipe, expected: dict[str, bytes]
) -> None:
    corpus = corpus_path("memory://a/corpus")
    runner.run(recipe, corpus, workers=4)  # no other process would see this memory
    check(objects_of(corpus), expected)
    remove_path(corpus)
    assert objects_of(corpus) == {}
