"""A run checks everything that it needs before it writes or downloads anything, and lists all problems."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.pictures_folder import encoded, make_folders, make_recipe, settings, write_recipe
from typer.testing import CliRunner

from stylear.cli import mount
from stylear.console import fail
from stylear.curate import run as runner
from stylear.curate.corpus.layout import STAGES
from stylear.curate.fetch import read_raw
from stylear.curate.fetch.check import check_source
from stylear.curate.preflight import checks
from stylear.curate.preflight.checks import check_recipe, unfinished_stages
from stylear.curate.recipe import check_recipe as parse_recipe
from stylear.curate.stage import Build
from stylear.errors import (
    SeveralErrors,
    SourceError,
    StorageError,
    StylearError,
    UsageError,
    WeightsError,
)

CLIP = {"name": "text", "type": "clip-text", "model": "no-such-model"}


def problems(root: Path, **changes: Any) -> list[str]:
    """What the checks of a recipe say, each cut at its hint."""
    build = Build(root / "corpus", make_recipe(root, settings(**changes)))
    return [check.error.message for check in check_recipe(build) if check.error is not None]


def run_command(*words: str) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(mount(), ["curate", "run", *words])
    return result.exit_code, result.stdout, result.exception


def test_a_dry_run_lists_every_problem_at_once_and_fails(tmp_path: Path) -> None:
    values = settings(raw=[{"type": "folder", "path": "nowhere"}], score=[CLIP], filter={})
    values["references"] = [{"type": "folder", "path": "no-styles"}]
    recipe, out = str(write_recipe(tmp_path, values)), str(tmp_path / "corpus")
    code, text, error = run_command(recipe, "--out", out, "--dry-run", "--json")
    printed = json.loads(text)
    assert (code, printed["ok"]) == (1, False)
    assert [problem["message"].split(":")[0] for problem in printed["problems"]] == [
        "raw.0 (folder)",
        "references.0.path",
        "score.text.model",
    ]
    assert isinstance(error, SeveralErrors)
    assert not (tmp_path / "corpus").exists()


def test_a_real_run_makes_the_same_checks_before_anything_is_written(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=2)
    (tmp_path / "list.csv").write_text("url,caption\nhttp://127.0.0.1:9/a.png,a cat\n")
    source = {"type": "urls", "path": "list.csv"}
    recipe = make_recipe(tmp_path, settings(raw=[source], score=[CLIP], filter={}))
    with pytest.raises(WeightsError, match=r"score\.text\.model: no-such-model: expected"):
        runner.run(recipe, tmp_path / "corpus", workers=1)
    assert not (tmp_path / "corpus").exists()


def test_several_problems_are_printed_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    errors = [UsageError("a: one", hint="first"), SourceError("b: two")]
    with pytest.raises(SystemExit) as caught:
        fail(SeveralErrors(errors))
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: a: one\nhint: first\nerror: b: two\n"


def test_a_missing_list_of_captions_is_named_with_the_folder_it_was_looked_for_in(
    tmp_path: Path,
) -> None:
    make_folders(tmp_path, pictures=2)
    source = {"type": "folder", "path": "photos", "captions": "captoins.csv"}
    build = Build(tmp_path / "corpus", make_recipe(tmp_path, settings(raw=[source])))
    error = check_recipe(build)[1].error
    assert error is not None
    assert f"{tmp_path / 'photos' / 'captoins.csv'}: expected the list of captions" in error.message
    assert error.hint == (
        f"captions is looked for inside {tmp_path / 'photos'}; lists there: captions.csv"
    )


def test_every_unreadable_input_is_found(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=2)
    (tmp_path / "list.csv").write_text("address,words\nx,y\n")
    (tmp_path / "bad.tar").write_bytes(b"not a tar" * 100)
    (tmp_path / "styles" / "s001.png").write_bytes(b"no picture")
    raw = [{"type": "urls", "path": "list.csv"}, {"type": "shards", "path": "bad.tar"}]
    messages = problems(tmp_path, raw=[*raw, {"type": "folder", "path": "photos"}])
    assert [text.split(":")[0] for text in messages] == [
        "raw.0 (urls)",
        "raw.1 (shards)",
        f"style reference {tmp_path / 'styles' / 's001.png'} is not a readable image",
    ]


def folder(root: Path) -> dict[str, Any]:
    make_folders(root, pictures=5, styles=0)
    return {"type": "folder", "path": "photos"}


def list_of_urls(root: Path) -> dict[str, Any]:
    (root / "list.tsv").write_text("url\tcaption\n" + "ftp://x/y.png\ta cat\n" * 3)
    return {"type": "urls", "path": "list.tsv"}


def parquet(root: Path) -> dict[str, Any]:
    images = [encoded(n) for n in range(4)]
    pq.write_table(pa.table({"image": images, "caption": list("abcd")}), root / "p.parquet")
    return {"type": "parquet", "path": "p.parquet", "limit": 3}


def drawings(root: Path) -> dict[str, Any]:
    return {"type": "mini", "limit": 7}


def tars(root: Path) -> dict[str, Any]:
    with tarfile.open(root / "s.tar", "w") as tar:
        for number in range(4):
            for ending, data in (("png", encoded(number)), ("txt", b"a cat")):
                info = tarfile.TarInfo(f"{number}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return {"type": "shards", "path": "s.tar"}


@pytest.mark.parametrize("make", [folder, list_of_urls, parquet, drawings, tars])
def test_a_source_is_counted_as_fetch_counts_it(
    tmp_path: Path, make: Callable[[Path], dict[str, Any]]
) -> None:
    recipe = parse_recipe({"name": "t", "raw": [make(tmp_path)]}, tmp_path)
    pairs = list(read_raw(recipe, tmp_path / "work"))
    assert check_source(recipe.raw[0], recipe).pairs == len(pairs) > 0


def test_only_stages_with_work_left_need_models(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=12)
    recipe = make_recipe(tmp_path)
    runner.run_stages(["fetch", "synthesize"], recipe, tmp_path / "corpus", workers=1)
    build = Build(tmp_path / "corpus", recipe)
    later = ["score", "filter", "mix", "pairs"]
    assert unfinished_stages(build, STAGES, None) == later
    assert unfinished_stages(build, STAGES, "synthesize") == ["synthesize", *later]
    assert unfinished_stages(build, ["mix"], None) == ["mix"]


def test_a_disk_that_is_too_small_stops_the_run_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folders(tmp_path, pictures=12)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(
        StorageError, match=r"expected about \d+ kB of free disk space, found 1\.0 kB"
    ):
        runner.run(make_recipe(tmp_path), tmp_path / "corpus", workers=1)
    assert not (tmp_path / "corpus").exists()


def test_a_device_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=2)
    scorer = {"name": "t", "type": "clip-text", "model": "mini-clip", "device": "mps"}
    (message,) = problems(tmp_path, score=[scorer], filter={})
    assert message.startswith("score.t.device: expected a device of this machine")


# --- models -----------------------------------------------------------------------------------


def pipeline(root: Path) -> Path:
    """A pipeline's directory with one part and its weights."""
    place = root / "sdxl"
    (place / "unet").mkdir(parents=True)
    (place / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet"]}))
    (place / "unet" / "model.safetensors").write_bytes(b"weights")
    return place


def lose_part(place: Path) -> str:
    shutil.rmtree(place / "unet")
    (place / "model.bin").write_bytes(b"weights")
    return "model_index.json names this part, found nothing"


def lose_shard(place: Path) -> str:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (place / "unet" / "model.safetensors.index.json").write_text(json.dumps(index))
    return "model.safetensors.index.json: expected 2 shards beside it, missing model-2.safetensors"


def lose_weights(place: Path) -> str:
    (place / "unet" / "model.safetensors").unlink()
    return "expected files with weights"


def empty_weights(place: Path) -> str:
    (place / "unet" / "model.safetensors").write_bytes(b"")
    return "model.safetensors: expected weights, found an empty file"


def leave_pointer(place: Path) -> str:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (place / "unet" / "model.safetensors").write_text(text)
    return "found a git-lfs pointer"


@pytest.mark.parametrize(
    "damage", [lose_part, lose_shard, lose_weights, empty_weights, leave_pointer]
)
def test_an_incomplete_model_is_named_before_the_run(
    tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    make_folders(tmp_path, pictures=2)
    place = pipeline(tmp_path)
    values = {"model": str(place), "ip_adapter": str(place)}
    spec = {"backend": "instantstyle", "settings": values}
    assert problems(tmp_path, synthesize=spec) == []
    complaint = damage(place)
    (message,) = problems(tmp_path, synthesize=spec)
    assert message.startswith("synthesize.settings.model, synthesize.settings.ip_adapter: ")
    assert complaint in message


def test_all_errors_are_of_the_tree(tmp_path: Path) -> None:
    assert issubclass(SeveralErrors, StylearError)
    assert SeveralErrors([WeightsError("a")]).exit_code == 1


def test_a_dry_run_of_fetch_lists_the_problems_of_all_sources(tmp_path: Path) -> None:
    sources = [{"type": "folder", "path": "nowhere"}, {"type": "urls", "path": "no-list.csv"}]
    text = json.dumps({"name": "t", "raw": sources})
    (tmp_path / "recipe.yaml").write_text(text)
    words = ["curate", "fetch", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "corpus")]
    error = CliRunner().invoke(mount(), [*words, "--dry-run"]).exception
    assert isinstance(error, SeveralErrors)
    assert [each.message.split(":")[0] for each in error.errors] == [
        "raw.0 (folder)",
        "raw.1 (urls)",
    ]
