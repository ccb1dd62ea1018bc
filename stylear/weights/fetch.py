"""Fetch a registered model into the models directory; every file is checked before it is used."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stylear.console import Bar, say
from stylear.errors import StorageError, WeightsError
from stylear.weights.download import Remote, count_partial_bytes, download, hash_existing
from stylear.weights.formats import SAFETENSORS, TORCH, recognise_format
from stylear.weights.hub import TEXTS, Listing, list_model_files
from stylear.weights.registry import Model, format_bytes
from stylear.weights.store import (
    LOCK_FILE,
    describe_manual_fetch,
    has_size,
    hold_model_lock,
    models_dir,
    read_lock,
    record_in_lock,
)

LONG_BYTES = 10**9  # our choice: hashing more than this takes seconds
BROKEN = (RuntimeError, ValueError, EOFError, OSError)  # what torch raises for damaged files


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fetch of a model would transfer."""

    model: Model
    listing: Listing
    present: Mapping[str, str]  # name -> sha256 of files that are in place already
    partial_bytes: int  # of the others, left by an earlier attempt

    @property
    def missing(self) -> dict[str, Remote]:
        """The files still to transfer, small ones first so that a refusal shows early."""
        missing = [item for item in self.listing.files.items() if item[0] not in self.present]
        return dict(sorted(missing, key=lambda item: item[1].bytes))

    @property
    def to_fetch(self) -> int:
        """The number of bytes still to transfer."""
        return sum(remote.bytes for remote in self.missing.values()) - self.partial_bytes


def plan_fetch(model: Model, *, update: bool = False) -> Plan:
    """What a fetch would transfer; hashes files that are in place, writes nothing.

    Unless `update` is set, the source must offer exactly the files recorded in weights.lock.
    Raises WeightsError if the source cannot be reached or offers other files.
    """
    directory = models_dir() / model.name
    locked = {} if update else read_lock().get(model.name, {})
    if not model.source:
        listing = _list_manual_files(model, locked)
    else:
        revision = str(locked.get("revision") or "")
        if revision and model.revision not in ("main", revision):
            say(
                f"{model.name}: pinned to {revision[:12]} by {LOCK_FILE}; --update fetches the newer one"
            )
        listing = list_model_files(model, revision)
    files = {name: _check_against_lock(model, name, r, locked) for name, r in listing.files.items()}
    listing = Listing(listing.revision, files)
    present = {}
    if read_lock().get(model.name) and listing.bytes > LONG_BYTES:
        say(f"{model.name}: hashing existing files")
    for name, remote in listing.files.items():
        path = directory / name
        if path.is_file() and path.stat().st_size == remote.bytes and remote.has_hash:
            digest = hash_existing(path, remote)
            if digest.find_mismatch(remote) is None:
                present[name] = digest.sha256
    partial_bytes = sum(
        count_partial_bytes(r, directory / n) for n, r in listing.files.items() if n not in present
    )
    return Plan(model, listing, present, partial_bytes)


def _check_against_lock(
    model: Model, name: str, remote: Remote, locked: Mapping[str, Any]
) -> Remote:
    """The remote file, if weights.lock agrees with it. Raises WeightsError if it does not."""
    file = locked.get("files", {}).get(name)
    if file is None:
        return remote
    stated = (remote.bytes, remote.sha256 or file["sha256"])
    if stated != (file["bytes"], file["sha256"]):
        raise WeightsError(
            f"{model.name}: {name}: expected sha256 {file['sha256']} recorded in {LOCK_FILE}, "
            f"found {remote.sha256 or f'{remote.bytes} bytes'} at the source",
            hint=f"stylear models fetch {model.name} --update accepts the current file",
        )
    return Remote(remote.url, remote.bytes, file["sha256"], hint=remote.hint)


def _list_manual_files(model: Model, locked: Mapping[str, Any]) -> Listing:
    path = models_dir() / model.name / model.main
    if not path.is_file():
        raise WeightsError(
            f"{path}: expected this file, which has no public download, found nothing",
            hint=describe_manual_fetch(model),
        )
    from stylear.weights.files import hash_path

    sha256 = hash_path(path)
    file = locked.get("files", {}).get(model.main, {"sha256": sha256})
    if file["sha256"] != sha256:
        raise WeightsError(
            f"{path}: expected sha256 {file['sha256']} recorded in {LOCK_FILE}, found {sha256}",
            hint=f"restore the file, or accept this one: stylear models fetch {model.name} --update",
        )
    return Listing(
        "", {model.main: Remote("", path.stat().st_size, sha256, hint=describe_manual_fetch(model))}
    )


def fetch_model(model: Model, *, update: bool = False) -> Plan:
    """Download a model into the models directory and record it in weights.lock; returns what was planned.

    Files in place are kept, an interrupted fetch is resumed, and concurrent fetches wait for each other.
    Raises WeightsError or StorageError.
    """
    directory = models_dir() / model.name
    with hold_model_lock(model.name):
        todo = plan_fetch(model, update=update)
        _check_space(todo)
        known = read_lock().get(model.name, {}).get("files", {})
        hashes = dict(todo.present)
        for name in todo.present:
            if name not in known:  # copied there by the user
                check_file(model, name, directory / name)
        with _show_progress(todo) as on_bytes:
            for name, remote in todo.missing.items():
                target = directory / name
                hashes[name] = _link_copy(remote, target, on_bytes) or download(
                    remote, target, accept=partial(check_file, model, name), on_bytes=on_bytes
                )
        record_in_lock(model, todo.listing, hashes)
    return todo


@contextmanager
def _show_progress(todo: Plan) -> Iterator[Callable[[int], None]]:
    """A progress bar that counts bytes; none if there is nothing to transfer."""
    name, total = todo.model.name, todo.to_fetch
    if not todo.missing:
        say(f"{name}: all {format_bytes(todo.listing.bytes)} present")
        yield lambda count: None
        return
    source = todo.model.source or todo.model.terms
    say(f"{name}: {format_bytes(total)} from {source} (licence: {todo.model.licence})")
    unit, size = ("MB", 10**6) if total >= 10**7 else ("kB", 10**3)
    arrived_bytes = 0
    with Bar(f"fetch {name}", total=-(-total // size), unit=unit) as bar:

        def on_bytes(count: int) -> None:
            nonlocal arrived_bytes
            arrived_bytes += count
            if step := -(-arrived_bytes // size) - bar.done:
                bar.advance(step)

        yield on_bytes


def check_file(model: Model, name: str, path: Path) -> None:
    """Raise WeightsError unless a file is text, safetensors, or a torch checkpoint of nothing but tensors.

    A checkpoint with other objects is accepted only if the registry pins its hash; its reader binds their
    names to inert stand-ins.
    """
    suffix = Path(name).suffix
    if suffix in TEXTS:
        return
    foreign = _find_foreign_names(path, suffix)
    pinned = any(file.sha256 and name == (file.local or file.name) for file in model.files)
    if foreign and not pinned:
        raise WeightsError(
            f"{model.name}: {name}: expected tensors only, found {', '.join(foreign)}",
            hint="loading this file the usual way would run code; it was discarded",
        )


def _link_copy(remote: Remote, target: Path, on_bytes: Callable[[int], None]) -> str | None:
    """Link the same file from another fetched model; its sha256, or None if no model has it."""
    for name, entry in read_lock().items():
        for file, facts in entry["files"].items():
            path = models_dir() / name / file
            same = facts["sha256"] == remote.sha256 and has_size(path, facts) and path != target
            if same and hash_existing(path, remote).find_mismatch(remote) is None:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                try:
                    target.hardlink_to(path)
                except OSError:  # a file system without links
                    shutil.copyfile(path, target)
                on_bytes(remote.bytes)
                return remote.sha256
    return None


def _check_space(todo: Plan) -> None:
    directory = models_dir()
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if todo.to_fetch > free:
        raise StorageError(
            f"{directory}: expected {format_bytes(todo.to_fetch)} of space for {todo.model.name}, "
            f"found {format_bytes(free)}",
            hint="free some space, or set STYLEAR_MODELS to a folder on another disk",
        )


def _find_foreign_names(path: Path, suffix: str) -> list[str]:
    """The globals that a checkpoint's pickle names besides tensors; nothing is imported or loaded.

    Empty for safetensors. Raises WeightsError if the file is truncated or of another format.
    """
    file_format = recognise_format(path)
    if not file_format.is_readable or (suffix == ".safetensors") != (
        file_format.kind == SAFETENSORS
    ):
        raise WeightsError(
            f"{path}: expected {suffix} weights, found {file_format.description}",
            hint="accepted are safetensors, and tensors saved with torch.save",
        )
    if file_format.kind == SAFETENSORS:
        return []
    import torch

    try:
        if file_format.kind == TORCH:
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        with path.open("rb") as stream:  # the format before torch 1.6
            torch.load(stream, map_location="cpu", weights_only=True)
        return []
    except (pickle.UnpicklingError, *BROKEN) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{path}: expected {suffix} weights, found a file that cannot be read: {first}",
            hint="accepted are safetensors, and tensors saved with torch.save",
        ) from error
