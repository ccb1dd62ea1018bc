"""The registry's facts, what a name means, and what the user is told when it is not there."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from stylear.cli import app
from stylear.errors import UsageError, WeightsError
from stylear.weights import names, registry
from stylear.weights import store as fetched
from stylear.weights.hub import TEXTS, WEIGHTS, is_safe_name
from stylear.weights.registry import MODELS, File, Model, format_bytes


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models directory and a registry of two small models."""
    monkeypatch.setenv("STYLEAR_MODELS", str(tmp_path / "models"))
    files = (File("w.safetensors", "", 3), File("config.json", "", 2))
    monkeypatch.setattr(registry, "MODELS", {})
    for name, main in (("one", "w.safetensors"), ("all", "")):
        registry.MODELS[name] = Model(
            name, "a small model", "org/repo", files, "MIT", "tests", main=main
        )
    return tmp_path / "models"


def put(place: Path, name: str, files: dict[str, bytes]) -> None:
    """Make a model look fetched."""
    facts = {}
    for file, data in files.items():
        (place / name).mkdir(parents=True, exist_ok=True)
        (place / name / file).write_bytes(data)
        facts[file] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    lock = fetched.read_lock() | {name: {"files": facts}}
    (place / fetched.LOCK_FILE).write_text(json.dumps({"models": lock}))


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_every_entry_is_whole(model: Model) -> None:
    assert MODELS[model.name] is model
    assert re.fullmatch(r"[a-z0-9-]+", model.name)
    assert model.purpose
    assert model.licence
    assert model.needed_by
    assert model.bytes > 0
    assert re.fullmatch(r"main|[0-9a-f]{40}", model.revision)
    assert [f for f in model.files if f.sha256 and not re.fullmatch("[0-9a-f]{64}", f.sha256)] == []
    locals_ = [file.local or file.name.split("|")[0] for file in model.files]
    assert len(set(locals_)) == len(locals_)
    assert [name for name in locals_ if not is_safe_name(name)] == []
    assert [name for name in locals_ if Path(name).suffix not in (*WEIGHTS, *TEXTS)] == []
    assert model.main in ("", *locals_)
    if not model.source:
        assert (len(model.files), bool(model.terms)) == (1, True)
    elif model.is_on_hub:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.source)
    else:  # no hub states the hashes of a plain URL: the registry must
        assert urlsplit(model.source).scheme == "https"
        assert [file.name for file in model.files if not (file.bytes and file.sha256)] == []


def test_the_models_of_the_toolkit_are_registered() -> None:
    assert {"sam-vit-b", "sam-vit-l", "sam-vit-h", "csd-vit-l", "dinov2-base"} <= MODELS.keys()
    assert {"clip-vit-h-14-laion2b", "sdxl-base", "ip-adapter-plus-sdxl"} <= MODELS.keys()
    assert {"flux-dev", "lumina-mgpt-7b-768", "chameleon-vqgan"} <= MODELS.keys()
    assert MODELS["sam-vit-h"].size == "2.6 GB"
    assert MODELS["sdxl-base"].size == "~6.9 GB"
    assert not {path.name for path in names.MINI_MODELS.iterdir()} & MODELS.keys()


def test_sizes_in_words() -> None:
    sizes = [0, 999, 3047, 375_042_383, 999_600_000, 33_700_000_000]
    assert [format_bytes(n) for n in sizes] == [
        "0 bytes",
        "999 bytes",
        "3 kB",
        "375 MB",
        "1.0 GB",
        "33.7 GB",
    ]


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="sam-vit: expected the name of a registered") as caught:
        registry.get_model("sam-vit")
    assert "sam-vit-b" in (caught.value.hint or "")
    with pytest.raises(UsageError) as caught:
        registry.get_model("zzzz")
    assert "stylear models list" in (caught.value.hint or "")


def test_a_registered_name_means_what_was_fetched(place: Path) -> None:
    files = {"w.safetensors": b"abc", "config.json": b"{}"}
    put(place, "one", files)
    put(place, "all", files)
    assert names.resolve_model("one") == place / "one" / "w.safetensors"
    assert names.resolve_model("all") == place / "all"
    (place / "all" / "config.json").unlink()
    with pytest.raises(WeightsError, match="found an unfinished download"):
        names.resolve_model("all")


def test_what_is_made_from_a_model_records_its_name_where_it_has_one(
    place: Path, tmp_path: Path
) -> None:
    assert names.find_model_name(place / "all") == "all"
    assert names.find_model_name(names.MINI_MODELS / "mini-ar") == "mini-ar"
    assert names.find_model_name(place / "unknown") == str(place / "unknown")
    assert names.find_model_name(tmp_path / "all") == str(tmp_path / "all")


def test_a_missing_model_is_named_with_size_licence_and_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLEAR_MODELS", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        names.resolve_model("sam-vit-b")
    assert caught.value.message == (
        f"sam-vit-b: expected segment-anything ViT-B in {tmp_path}/sam-vit-b, found nothing "
        "(375 MB, licence: Apache-2.0)"
    )
    assert caught.value.hint == "fetch it: stylear models fetch sam-vit-b"
    with pytest.raises(WeightsError, match=r"~275 MB, licence: Chameleon") as caught:
        names.resolve_model("chameleon-vqgan")
    assert "request vqgan.ckpt at https://github.com/" in (caught.value.hint or "")
    with pytest.raises(WeightsError) as caught:
        names.resolve_model("facebook/dinov2-base")
    assert caught.value.hint == "this hub id is registered as dinov2-base"
    assert list(tmp_path.iterdir()) == []


def test_a_local_path_wins_over_a_registered_name(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert names.resolve_model("one") == tmp_path / "one"


def test_where_fetched_models_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEAR_MODELS", str(tmp_path / "m"))
    assert fetched.models_dir() == tmp_path / "m"
    monkeypatch.delenv("STYLEAR_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetched.models_dir() == tmp_path / "stylear" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert fetched.models_dir() == Path.home() / ".cache" / "stylear" / "models"


def test_list_shows_what_is_where(place: Path) -> None:
    put(place, "one", {"w.safetensors": b"abc", "config.json": b"{}"})
    (place / "all").mkdir()
    (place / "all" / ".w.safetensors.x.part").write_bytes(b"a")
    result = CliRunner().invoke(app, ["models", "list"])
    lines = [re.split(r"  +", line) for line in result.stdout.splitlines()]
    assert lines[0] == ["name", "purpose", "size", "licence", "state"]
    assert lines[-2:] == [
        ["one", "a small model", "5 bytes", "MIT", "fetched"],
        ["all", "a small model", "5 bytes", "MIT", "partial"],
    ]
    assert {line[-1] for line in lines[1:-2]} == {"shipped"}
    rows = json.loads(CliRunner().invoke(app, ["models", "list", "--json"]).stdout)
    assert rows[-2]["path"] == str(place / "one" / "w.safetensors")
    assert (rows[-1]["path"], rows[-1]["needed_by"]) == (None, "tests")


def test_verify_finds_a_flipped_byte_and_names_the_command(place: Path) -> None:
    put(place, "one", {"w.safetensors": b"abc", "config.json": b"{}"})
    printed = json.loads(CliRunner().invoke(app, ["models", "verify", "--json"]).stdout)
    assert (printed["fetched"], printed["ok"]) == (2, True)
    assert printed["files"] == printed["shipped"] + 2
    (place / "one" / "w.safetensors").write_bytes(b"abb")
    with pytest.raises(
        WeightsError, match=r"w\.safetensors: expected sha256 ba78.*, found"
    ) as caught:
        fetched.verify_fetched()
    assert caught.value.hint == "fetch again: stylear models fetch one"
    (place / "one" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"\(and 1 more\)"):
        fetched.verify_fetched()


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"models": []}', '{"models": {"x": {}}}', '{"models": {"x": {"files": {"f": 1}}}}',
     '{"models": {"..": {"files": {"f": {"bytes": 1, "sha256": ""}}}}}',
     '{"models": {"x": {"files": {"../f": {"bytes": 1, "sha256": ""}}}}}'],
)  # fmt: skip
def test_a_damaged_lock_is_a_sentence(place: Path, text: str) -> None:
    place.mkdir()
    (place / fetched.LOCK_FILE).write_text(text)
    with pytest.raises(WeightsError, match=r"weights\.lock: expected"):
        fetched.read_lock()


def test_the_page_of_models_says_what_the_registry_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert rows == [
        [f"`{model.name}`", model.purpose, model.size, model.licence, model.needed_by]
        for model in MODELS.values()
    ]
