"""Claims about failing downloads: a failing run stops, what failed can be asked for again, and only that."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from builders.picture_site import Site, running, write_list
from typer.testing import CliRunner

from stylear.curate import run as runner
from stylear.curate.audit.manifest import corpus_files
from stylear.curate.cli import app
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.fetch import urls
from stylear.curate.fetch.loopback import NETWORK
from stylear.curate.fetch.success import SuccessMonitor
from stylear.curate.recipe import Recipe, load_recipe
from stylear.errors import SourceError, StylearError, UsageError


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running(tmp_path) as running_site:
        yield running_site


@pytest.fixture
def recipe(tmp_path: Path, site: Site) -> Recipe:
    return write_recipe(tmp_path, site)


def write_recipe(root: Path, site: Site) -> Recipe:
    write_list(root, site, range(10), [("file:///etc/passwd", "a file")])
    source = {"type": "urls", "path": "list.csv", "allow_networks": [NETWORK], "threads": 2}
    values = {
        "name": "test",
        "image": {"size": 16},
        "raw": [source],
        "score": [{"name": "phash", "type": "phash"}],
        "mix": {"shard_pairs": 4, "val_fraction": 0.0},
    }
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), "utf-8")
    return load_recipe(path)


def reasons(corpus: Path) -> list[str | None]:
    return [pair.verdict.reason for pair in iter_pairs(corpus / "raw")]


def contents(corpus: Path) -> dict[str, bytes]:
    return {name: (corpus / name).read_bytes() for name in corpus_files(corpus)}


def test_a_retried_corpus_equals_one_that_never_failed(
    tmp_path: Path, site: Site, recipe: Recipe
) -> None:
    runner.run(recipe, tmp_path / "whole", workers=1)
    site.failing = {"/1.png": 503, "/2.png": 404, "/8.png": 429}
    runner.run(recipe, tmp_path / "corpus", workers=1)
    scored = tmp_path / "corpus" / "ledger" / "score.phash" / "raw-00001.json"
    untouched = scored.stat().st_mtime_ns
    assert reasons(tmp_path / "corpus") == [
        None,
        "http-503",
        "http-404",
        *([None] * 5),
        "http-429",
        None,
        "not-http",
    ]

    site.failing = {"/2.png": 404}
    site.asked.clear()
    refilled, results = runner.retry(recipe, tmp_path / "corpus", ["429", "5xx"], workers=1)
    assert sorted(site.asked) == ["/1.png", "/8.png"]
    assert refilled.units == ["00000", "00002"]
    assert refilled.rows() == [
        {"reason": "http-429", "retried": 1, "recovered": 1},
        {"reason": "http-503", "retried": 1, "recovered": 1},
    ]
    assert [result.stage for result in results] == ["score", "filter", "mix", "pairs"]
    assert results[0].new == 2
    assert scored.stat().st_mtime_ns == untouched  # its shard did not change

    site.failing = {}
    runner.retry(recipe, tmp_path / "corpus", ["404"], workers=1)
    assert contents(tmp_path / "corpus") == contents(tmp_path / "whole")
    assert (tmp_path / "corpus" / "manifest.json").read_bytes() == (
        tmp_path / "whole" / "manifest.json"
    ).read_bytes()
    runner.require_audit(tmp_path / "corpus")
    assert not (tmp_path / "corpus" / ".work").exists()


def test_a_row_that_fails_again_has_its_latest_reason(
    tmp_path: Path, site: Site, recipe: Recipe
) -> None:
    site.failing = {"/1.png": 503, "/2.png": 503}
    runner.run_stages(["fetch"], recipe, tmp_path / "corpus", workers=1)
    site.failing = {"/1.png": 404, "/2.png": 503}
    refilled, results = runner.retry(recipe, tmp_path / "corpus", ["503"], workers=1)
    assert reasons(tmp_path / "corpus")[:3] == [None, "http-404", "http-503"]
    assert refilled.rows() == [{"reason": "http-503", "retried": 2, "recovered": 0}]
    assert results == []  # nothing had followed
    entry = Ledger(tmp_path / "corpus").entry("fetch", "all")
    assert entry is not None
    assert entry.dropped == {"http-404": 1, "http-503": 1, "not-http": 1}

    with pytest.raises(UsageError, match="no download failed that way") as error:
        runner.retry(recipe, tmp_path / "corpus", ["timeout"], workers=1)
    assert error.value.hint == "downloads failed with: http-404, http-503"


def test_the_times_of_downloads_are_beside_the_corpus(
    tmp_path: Path, site: Site, recipe: Recipe
) -> None:
    """They differ in every run, so they are no part of what the manifest answers for."""
    site.failing = {"/9.png": 404}
    runner.run_stages(["fetch"], recipe, tmp_path / "corpus", workers=1)
    pairs = list(iter_pairs(tmp_path / "corpus" / "raw"))
    tables = sorted((tmp_path / "corpus" / "fetched").iterdir())
    assert [path.name for path in tables] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    keys = [key for path in tables for key in pq.read_table(path)["key"].to_pylist()]
    assert keys == [pair.key for pair in pairs[:10]]  # one row was refused without a download
    assert not [name for name in corpus_files(tmp_path / "corpus") if "fetched" in name]
    assert dict(pairs[0].origin.details) == {
        "http_status": 200,
        "content_type": "image/png",
        "source_width": 24,
        "source_height": 24,
        "source_format": "png",
    }
    assert dict(pairs[9].origin.details) == {"http_status": 404}


# killed


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Recipe, Path]]:
    """`whole`, which never failed, and `corpus`, which lacks a picture in each of two shards."""
    root = tmp_path_factory.mktemp("killed")
    with running(root) as site:
        recipe = write_recipe(root, site)
        runner.run(recipe, root / "whole", workers=1)
        site.failing = {"/1.png": 503, "/8.png": 429}
        runner.run(recipe, root / "corpus", workers=1)
        site.failing = {}
        yield site, recipe, root


@pytest.mark.parametrize(
    ("point", "commands"),
    [
        (".retry/ledger/fetch/00000.json", ["retry"]),
        ("raw/00000.parquet", ["retry"]),  # its tar is there
        ("ledger/fetch/00000.json", ["retry"]),
        ("ledger/fetch/00000.json", ["run", "retry"]),
        ("ledger/mix/all.json", ["retry"]),
    ],
)
def test_a_retry_that_is_killed_and_run_again_ends_in_a_whole_corpus(
    half: tuple[Site, Recipe, Path], tmp_path: Path, point: str, commands: list[str]
) -> None:
    _, recipe, root = half
    corpus = tmp_path / "corpus"
    shutil.copytree(root / "corpus", corpus)
    child = [sys.executable, str(Path(__file__).parents[1] / "builders" / "killed_child.py")]
    killed = subprocess.run(
        [*child, "retry", str(root / "recipe.yaml"), str(corpus), point],
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for command in commands:
        if command == "run":
            runner.run(recipe, corpus, workers=1)  # audits
        else:
            runner.retry(recipe, corpus, ["429", "5xx"], workers=1)
    assert contents(corpus) == contents(root / "whole")
    runner.require_audit(corpus)
    keys = [pair.key for pair in iter_pairs(corpus / "raw")]
    assert len(keys) == len(set(keys)) == 11
    assert not (corpus / ".retry").exists()


# a run that is failing


def test_a_dead_network_makes_no_corpus(tmp_path: Path, site: Site, recipe: Recipe) -> None:
    site.failing = {f"/{n}.png": 500 for n in range(10)}
    with pytest.raises(SourceError) as error:
        runner.run(recipe, tmp_path / "corpus", workers=1)
    assert error.value.message == (
        f"{tmp_path}/list.csv: 0 of the last 10 downloads succeeded, expected at least 10%;"
        " the others: http-500 10"
    )
    assert not list((tmp_path / "corpus" / "raw").glob("*.parquet"))

    site.failing, site.asked[:] = {}, []
    runner.run(recipe, tmp_path / "corpus", workers=1)  # what failed is asked for again
    assert reasons(tmp_path / "corpus") == [*([None] * 10), "not-http"]
    assert len(site.asked) == 10


def test_the_share_that_must_succeed_is_a_setting(
    tmp_path: Path, site: Site, recipe: Recipe
) -> None:
    site.failing = {f"/{n}.png": 500 for n in range(7)}
    path, out = str(tmp_path / "recipe.yaml"), str(tmp_path / "corpus")
    arguments = ["fetch", path, "--out", out, "--json"]
    with pytest.raises(SourceError, match=r"3 of the last 10 .* at least 40%"):
        CliRunner().invoke(app, [*arguments, "--min-success", "0.4"], catch_exceptions=False)
    result = CliRunner().invoke(app, [*arguments, "--min-success", "0.3"], catch_exceptions=False)
    assert json.loads(result.stdout)[0]["kept"] == 3


def test_a_corpus_without_a_pair_is_no_success(tmp_path: Path, site: Site, recipe: Recipe) -> None:
    site.failing = {f"/{n}.png": 500 for n in range(10)}
    raw = tuple(source.model_copy(update={"min_success": 0.0}) for source in recipe.raw)
    careless = recipe.model_copy(update={"raw": raw})
    for _ in range(2):
        with pytest.raises(StylearError, match=r"none of 11 pairs .* http-500 10, not-http 1"):
            runner.run(careless, tmp_path / "corpus", workers=1)


def judged(blocks: list[dict[str | None, int]], share: float) -> tuple[int, list[int]]:
    """(blocks counted before the end, blocks discarded)."""
    success, discarded = SuccessMonitor("list", share), list[int]()

    def discard(number: int) -> Callable[[], None]:
        return lambda: discarded.append(number)

    for number, block in enumerate(blocks):
        try:
            success.count(block, discard(number), number == len(blocks) - 1)
        except SourceError:
            return number, discarded
    return len(blocks), discarded


def test_the_latest_blocks_are_judged_together() -> None:
    good, bad, dead = {None: 90, "timeout": 10}, {None: 5, "http-404": 95}, {"timeout": 100}
    assert judged([good] * 9, 0.5) == (9, [])
    assert judged([dead, good], 0.1) == (0, [0])  # a hundred without one success is enough
    assert judged([bad, good, good, good], 0.5) == (4, [])  # a stretch of dead hosts is not
    assert judged([good, bad, bad, bad, good], 0.5) == (3, [1, 2, 3])
    assert judged([good, good, good, good, dead, dead, dead], 0.3) == (6, [4, 5, 6])
    assert judged([{"timeout": 3}], 0.1) == (0, [0])
    assert judged([{}, {}], 0.5) == (2, [])
    assert judged([dead] * 9, 0.0) == (9, [])


def test_what_was_asked_for_meanwhile_is_forgotten_too(
    tmp_path: Path, site: Site, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "BLOCK_ROWS", 2)
    site.failing = {f"/{n}.png": 500 for n in range(10)}
    raw = tuple(source.model_copy(update={"min_success": 0.5}) for source in recipe.raw)
    with pytest.raises(SourceError, match="0 of the last 8 downloads"):
        runner.run_stages(
            ["fetch"], recipe.model_copy(update={"raw": raw}), tmp_path / "corpus", workers=1
        )
    left = (tmp_path / "corpus" / ".work" / "urls").iterdir()
    assert not [path for path in left if path.is_dir() and ".part-" not in path.name]


# the command


def test_a_dry_run_says_what_would_be_fetched_and_asks_nobody(
    tmp_path: Path, site: Site, recipe: Recipe
) -> None:
    out = tmp_path / "corpus"
    arguments = ["fetch", str(tmp_path / "recipe.yaml"), "--out", str(out), "--dry-run"]
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(result.stdout) == [
        {
            "source": "urls",
            "path": str(tmp_path / "list.csv"),
            "pairs": 11,
            "downloads": 10,
            "hosts": 1,
            "busiest": f"{site.base.removeprefix('http://')} 10",
            "refused": "not-http 1",
            "bytes": None,
        }
    ]
    assert site.asked == []
    assert not out.exists()


def test_retry_is_a_command(tmp_path: Path, site: Site, recipe: Recipe) -> None:
    site.failing = {"/4.png": 503}
    runner.run_stages(["fetch"], recipe, tmp_path / "corpus", workers=1)
    site.failing = {}
    arguments = ["retry", str(tmp_path / "corpus"), "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert json.loads(result.stdout) == {
        "downloads": [{"reason": "http-503", "retried": 1, "recovered": 1}],
        "shards": ["00001"],
        "stages": [],
    }


def test_a_network_can_be_allowed_on_the_command_line(
    tmp_path: Path, site: Site, recipe: Recipe
) -> None:
    arguments = ["fetch", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "corpus")]
    shut = [*arguments, "--set", "raw.0.allow_networks=[]"]
    with pytest.raises(SourceError, match="the others: not-public-address 10"):
        CliRunner().invoke(app, shut, catch_exceptions=False)
    assert site.asked == []
    opened = [*shut, "--allow-network", "127.0.0.0/8", "--json"]
    result = CliRunner().invoke(app, opened, catch_exceptions=False)
    assert json.loads(result.stdout)[0]["kept"] == 10
    with pytest.raises(UsageError, match=r"--allow-network 127\.0\.0\.1/8: expected a network"):
        CliRunner().invoke(app, [*shut, "--allow-network", "127.0.0.1/8"], catch_exceptions=False)
