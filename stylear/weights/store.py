"""Fetched: the models directory and its weights.lock, which says what every file in it must be."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from stylear.console import ByteBar, say
from stylear.errors import WeightsError
from stylear.weights.hub import Listing, safe_name
from stylear.weights.registry import Model

LOCK_FILE = "weights.lock"
Where = Literal["fetched", "partial", "missing"]


def models_dir() -> Path:
    """Where fetched models lie: $STYLEAR_MODELS, or stylear/models in the user's cache."""
    if given := os.environ.get("STYLEAR_MODELS"):
        return Path(given).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "stylear" / "models"


def read_lock() -> dict[str, dict[str, Any]]:
    """weights.lock: by model's name its source, revision, licence and files with bytes and sha256.

    Raises WeightsError when it is not such a file.
    """
    from stylear.weights.files import read_json

    path = models_dir() / LOCK_FILE
    if not path.is_file():
        return {}
    models = read_json(path).get("models")
    if not isinstance(models, dict) or not all(map(_is_entry, models.items())):
        raise WeightsError(
            f"{path}: expected `models`, each with `files` of `bytes` and `sha256`",
            hint="restore the file, or move it away and fetch the models again",
        )
    return models


def _is_entry(named: tuple[str, Any]) -> bool:
    model, value = named
    files = value.get("files") if isinstance(value, dict) else None
    return isinstance(files, dict) and all(
        safe_name(f"{model}/{name}")
        and isinstance(file, dict)
        and isinstance(file.get("bytes"), int)
        and isinstance(file.get("sha256"), str)
        for name, file in files.items()
    )


def fetch_state(model: Model, lock: Mapping[str, Any]) -> Where:
    """Whether a model is there, by weights.lock and the sizes of its files."""
    directory = models_dir() / model.name
    files = lock[model.name]["files"] if model.name in lock else {}
    if files and all(has_size(directory / name, file) for name, file in files.items()):
        return "fetched"
    some = any(path.is_file() and path.stat().st_size for path in directory.rglob("*"))
    return "partial" if some else "missing"


def has_size(path: Path, file: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == file["bytes"]


def path_of(model: Model) -> Path:
    """The directory or file that a fetched model's name means.

    Raises WeightsError with its size, its licence and the command that fetches it when it is not
    there.
    """
    directory = models_dir() / model.name
    found = fetch_state(model, read_lock())
    if found == "fetched":
        return path_in(model)
    raise WeightsError(
        f"{model.name}: expected {model.purpose} in {directory}, found "
        f"{'a part of it' if found == 'partial' else 'nothing'} "
        f"({model.size}, licence: {model.licence})",
        hint=manual_instructions(model)
        if not model.source
        else f"fetch it: stylear models fetch {model.name}",
    )


def path_in(model: Model) -> Path:
    """The directory or file that a model's name means once it is fetched."""
    directory = models_dir() / model.name
    return directory / model.main if model.main else directory


def manual_instructions(model: Model) -> str:
    """How to get a model that has no public address."""
    return (
        f"ask for {model.main} at {model.terms}, put it into {models_dir() / model.name}, "
        f"then: stylear models fetch {model.name}"
    )


def record_in_lock(model: Model, found: Listing, hashes: Mapping[str, str]) -> None:
    """Enter a model's files with their sha256 into weights.lock."""
    from stylear.weights.files import write_json

    files = {
        name: {"bytes": found.files[name].bytes, "sha256": hashes[name]} for name in sorted(hashes)
    }
    with hold_model_lock(LOCK_FILE):
        lock = read_lock()
        lock[model.name] = {
            "source": model.source or model.terms,
            "revision": found.revision,
            "licence": model.licence,
            "files": files,
        }
        write_json(models_dir() / LOCK_FILE, {"models": dict(sorted(lock.items()))})


@contextmanager
def hold_model_lock(name: str) -> Iterator[None]:
    """Only one process at a time is here for a name; the system lets go for one that died."""
    place = models_dir()
    place.mkdir(parents=True, exist_ok=True)
    with (place / f".{name}.held").open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: waiting for another process")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def verify() -> int:
    """Hash every fetched file against weights.lock; returns how many there are.

    Raises WeightsError that names the first file that is missing or changed.
    """
    from stylear.weights.files import sha256_of

    lock = read_lock()
    todo = [(m, name, file) for m, entry in lock.items() for name, file in entry["files"].items()]
    problems, damaged = [], set()
    with ByteBar("verify", sum(file["bytes"] for _, _, file in todo)) as bar:
        for model, name, file in todo:
            path = models_dir() / model / name
            found = sha256_of(path) if path.is_file() else "nothing"
            if found != file["sha256"]:
                problems.append(f"{path}: expected sha256 {file['sha256']}, found {found}")
                damaged.add(model)
            bar.advance_bytes(file["bytes"])
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WeightsError(
            f"{problems[0]}{more}",
            hint=f"fetch again: stylear models fetch {' '.join(sorted(damaged))}",
        )
    return len(todo)
