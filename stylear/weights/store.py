"""The models directory and its weights.lock, which records the size and hash of every fetched file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from stylear.console import ByteBar, say
from stylear.errors import WeightsError
from stylear.weights.hub import Listing, is_safe_name
from stylear.weights.registry import Model

LOCK_FILE = "weights.lock"
FetchState = Literal["fetched", "partial", "missing"]


def models_dir() -> Path:
    """The directory of fetched models: $STYLEAR_MODELS, or stylear/models in the user's cache."""
    if configured := os.environ.get("STYLEAR_MODELS"):
        return Path(configured).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "stylear" / "models"


def read_lock() -> dict[str, dict[str, Any]]:
    """weights.lock: model name -> source, revision, licence, and files with bytes and sha256.

    Empty if there is none. Raises WeightsError if the file has another structure.
    """
    from stylear.weights.files import read_json

    path = models_dir() / LOCK_FILE
    if not path.is_file():
        return {}
    models = read_json(path).get("models")
    if not isinstance(models, dict) or not all(map(_is_entry, models.items())):
        raise WeightsError(
            f"{path}: expected `models`, each with `files` that have `bytes` and `sha256`,"
            " found another structure",
            hint="restore the file, or move it away and fetch the models again",
        )
    return models


def _is_entry(item: tuple[str, Any]) -> bool:
    model, value = item
    files = value.get("files") if isinstance(value, dict) else None
    return isinstance(files, dict) and all(
        is_safe_name(f"{model}/{name}")
        and isinstance(file, dict)
        and isinstance(file.get("bytes"), int)
        and isinstance(file.get("sha256"), str)
        for name, file in files.items()
    )


def get_fetch_state(model: Model, lock: Mapping[str, Any]) -> FetchState:
    """Whether a model is fetched, by weights.lock and the sizes of its files."""
    directory = models_dir() / model.name
    files = lock[model.name]["files"] if model.name in lock else {}
    if files and all(has_size(directory / name, file) for name, file in files.items()):
        return "fetched"
    some = any(path.is_file() and path.stat().st_size for path in directory.rglob("*"))
    return "partial" if some else "missing"


def has_size(path: Path, file: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == file["bytes"]


def find_fetched(model: Model) -> Path:
    """The directory or file of a fetched model.

    Raises WeightsError that states its size, its licence and the command that fetches it, if it is missing.
    """
    directory = models_dir() / model.name
    state = get_fetch_state(model, read_lock())
    if state == "fetched":
        return fetched_path(model)
    raise WeightsError(
        f"{model.name}: expected {model.purpose} in {directory}, found "
        f"{'an unfinished download' if state == 'partial' else 'nothing'} "
        f"({model.size}, licence: {model.licence})",
        hint=describe_manual_fetch(model)
        if not model.source
        else f"fetch it: stylear models fetch {model.name}",
    )


def fetched_path(model: Model) -> Path:
    """Where a model is, or will be, once it is fetched: its main file, or its directory."""
    directory = models_dir() / model.name
    return directory / model.main if model.main else directory


def describe_manual_fetch(model: Model) -> str:
    """How to obtain a model that has no public download."""
    return (
        f"request {model.main} at {model.terms}, copy it into {models_dir() / model.name}, "
        f"then: stylear models fetch {model.name}"
    )


def record_in_lock(model: Model, listing: Listing, hashes: Mapping[str, str]) -> None:
    """Record a model's files and their sha256 in weights.lock."""
    from stylear.weights.files import write_json

    files = {
        name: {"bytes": listing.files[name].bytes, "sha256": hashes[name]}
        for name in sorted(hashes)
    }
    with hold_model_lock(LOCK_FILE):
        lock = read_lock()
        lock[model.name] = {
            "source": model.source or model.terms,
            "revision": listing.revision,
            "licence": model.licence,
            "files": files,
        }
        write_json(models_dir() / LOCK_FILE, {"models": dict(sorted(lock.items()))})


@contextmanager
def hold_model_lock(name: str) -> Iterator[None]:
    """Hold an exclusive lock on a name; the system releases it if the process dies."""
    directory = models_dir()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f".{name}.held").open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: waiting for another process")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def verify_fetched() -> int:
    """Check every fetched file against weights.lock; returns their number.

    Raises WeightsError naming the first file that is missing or changed.
    """
    from stylear.weights.files import hash_path

    lock = read_lock()
    todo = [(m, name, file) for m, entry in lock.items() for name, file in entry["files"].items()]
    problems, damaged = [], set()
    with ByteBar("verify", sum(file["bytes"] for _, _, file in todo)) as bar:
        for model, name, file in todo:
            path = models_dir() / model / name
            sha256 = hash_path(path) if path.is_file() else "nothing"
            if sha256 != file["sha256"]:
                problems.append(f"{path}: expected sha256 {file['sha256']}, found {sha256}")
                damaged.add(model)
            bar.advance_bytes(file["bytes"])
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WeightsError(
            f"{problems[0]}{more}",
            hint=f"fetch again: stylear models fetch {' '.join(sorted(damaged))}",
        )
    return len(todo)
