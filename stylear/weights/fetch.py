"""Fetch: a registered model's files brought into the models directory, each checked before use."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stylear.console import Bar, say
from stylear.errors import StorageError, WeightsError
from stylear.weights.download import Remote, arrived, digest_of, download
from stylear.weights.hub import TEXTS, Listing, listing
from stylear.weights.registry import Model, human
from stylear.weights.store import (
    LOCK_FILE,
    has_size,
    hold_model_lock,
    manual_instructions,
    models_dir,
    read_lock,
    record_in_lock,
)

LONG_BYTES = 10**9  # ours: so much takes seconds to hash
BROKEN = (RuntimeError, ValueError, EOFError, OSError)  # what torch raises for damaged files


@dataclass(frozen=True, slots=True)
class Plan:
    """What fetching a model means now."""

    model: Model
    listing: Listing
    there: Mapping[str, str]  # sha256 of the files that are in place, by name
    arrived: int  # bytes of the others from an earlier attempt

    @property
    def missing(self) -> dict[str, Remote]:
        """The files that have to come, small ones first: a refusal then shows at once."""
        todo = [item for item in self.listing.files.items() if item[0] not in self.there]
        return dict(sorted(todo, key=lambda item: item[1].bytes))

    @property
    def to_fetch(self) -> int:
        """How many bytes have to come over the network."""
        return sum(remote.bytes for remote in self.missing.values()) - self.arrived


def plan(model: Model, *, update: bool = False) -> Plan:
    """What fetching would transfer; files in place are hashed, nothing is written.

    What weights.lock holds of the model is asked for again, byte for byte, unless `update`.
    Raises WeightsError when the source cannot be asked or has other files than weights.lock says.
    """
    directory = models_dir() / model.name
    held = {} if update else read_lock().get(model.name, {})
    if not model.source:
        found = _placed_by_hand(model, held)
    else:
        revision = str(held.get("revision") or "")
        if revision and model.revision not in ("main", revision):
            say(
                f"{model.name}: kept at {revision[:12]} as in {LOCK_FILE}; --update takes the newer"
            )
        found = listing(model, revision)
    files = {name: _agreed(model, name, r, held) for name, r in found.files.items()}
    found = Listing(found.revision, files)
    there = {}
    if read_lock().get(model.name) and found.bytes > LONG_BYTES:
        say(f"{model.name}: hashing what is there")
    for name, remote in found.files.items():
        path = directory / name
        if path.is_file() and path.stat().st_size == remote.bytes and remote.known:
            digest = digest_of(path, remote)
            if digest.problem(remote) is None:
                there[name] = digest.sha256
    left = sum(arrived(r, directory / n) for n, r in found.files.items() if n not in there)
    return Plan(model, found, there, left)


def _agreed(model: Model, name: str, remote: Remote, held: Mapping[str, Any]) -> Remote:
    """The file as its source and weights.lock both have it."""
    file = held.get("files", {}).get(name)
    if file is None:
        return remote
    stated = (remote.bytes, remote.sha256 or file["sha256"])
    if stated != (file["bytes"], file["sha256"]):
        raise WeightsError(
            f"{model.name}: {name}: expected sha256 {file['sha256']} as in {LOCK_FILE}, "
            f"found {remote.sha256 or f'{remote.bytes} bytes'} at its source",
            hint=f"stylear models fetch {model.name} --update takes what is there now",
        )
    return Remote(remote.url, remote.bytes, file["sha256"], hint=remote.hint)


def _placed_by_hand(model: Model, held: Mapping[str, Any]) -> Listing:
    path = models_dir() / model.name / model.main
    if not path.is_file():
        raise WeightsError(
            f"{path}: expected this file, which has no public address, found nothing",
            hint=manual_instructions(model),
        )
    from stylear.weights.files import sha256_of

    sha256 = sha256_of(path)
    file = held.get("files", {}).get(model.main, {"sha256": sha256})
    if file["sha256"] != sha256:
        raise WeightsError(
            f"{path}: expected sha256 {file['sha256']} as in {LOCK_FILE}, found {sha256}",
            hint=f"put the file there again; stylear models fetch {model.name} --update takes this",
        )
    return Listing(
        "", {model.main: Remote("", path.stat().st_size, sha256, hint=manual_instructions(model))}
    )


def fetch(model: Model, *, update: bool = False) -> Plan:
    """Bring a model's files into the models directory and record them; returns what was done.

    Files in place are kept, a killed attempt is gone on with, two at a time wait for each other.
    Raises WeightsError or StorageError.
    """
    directory = models_dir() / model.name
    with hold_model_lock(model.name):
        todo = plan(model, update=update)
        _check_space(todo)
        known = read_lock().get(model.name, {}).get("files", {})
        hashes = dict(todo.there)
        for name in todo.there:
            if name not in known:  # put there by hand
                accept(model, name, directory / name)
        with _meter(todo) as on_bytes:
            for name, remote in todo.missing.items():
                target = directory / name
                hashes[name] = _copied(remote, target, on_bytes) or download(
                    remote, target, accept=partial(accept, model, name), on_bytes=on_bytes
                )
        record_in_lock(model, todo.listing, hashes)
    return todo


@contextmanager
def _meter(todo: Plan) -> Iterator[Callable[[int], None]]:
    """A progress bar to be fed with bytes; no bar when there is nothing to transfer."""
    name, total = todo.model.name, todo.to_fetch
    if not todo.missing:
        say(f"{name}: all {human(todo.listing.bytes)} are there")
        yield lambda count: None
        return
    source = todo.model.source or todo.model.terms
    say(f"{name}: {human(total)} from {source} (licence: {todo.model.licence})")
    unit, size = ("MB", 10**6) if total >= 10**7 else ("kB", 10**3)
    arrived_bytes = 0
    with Bar(f"fetch {name}", total=-(-total // size), unit=unit) as bar:

        def on_bytes(count: int) -> None:
            nonlocal arrived_bytes
            arrived_bytes += count
            if step := -(-arrived_bytes // size) - bar.done:
                bar.advance(step)

        yield on_bytes


def accept(model: Model, name: str, path: Path) -> None:
    """Raise WeightsError unless a file is text, safetensors, or a torch file of tensors alone.

    A torch file that holds more is taken only where the registry has its very hash; what reads it
    binds the other names to nothing.
    """
    suffix = Path(name).suffix
    if suffix in TEXTS:
        return
    foreign = _foreign_names(path, suffix)
    pinned = any(file.sha256 and name == (file.local or file.name) for file in model.files)
    if foreign and not pinned:
        raise WeightsError(
            f"{model.name}: {name}: expected tensors alone, found {', '.join(foreign)}",
            hint="this file would run code when it is opened the usual way; nothing was kept",
        )


def _copied(remote: Remote, target: Path, on_bytes: Callable[[int], None]) -> str | None:
    """The same file of another fetched model, linked to its place; its sha256, None if no such."""
    for name, entry in read_lock().items():
        for file, facts in entry["files"].items():
            path = models_dir() / name / file
            same = facts["sha256"] == remote.sha256 and has_size(path, facts) and path != target
            if same and digest_of(path, remote).problem(remote) is None:
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
    place = models_dir()
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if todo.to_fetch > free:
        raise StorageError(
            f"{place}: expected {human(todo.to_fetch)} of space for {todo.model.name}, "
            f"found {human(free)}",
            hint="free some space, or set STYLEAR_MODELS to a folder on another disk",
        )


def _foreign_names(path: Path, suffix: str) -> list[str]:
    """What a weights file names besides tensors, without reading these: none of it is imported.

    Always empty for safetensors. Raises WeightsError when the file is not whole or of no such kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if suffix == ".safetensors":
            with safe_open(path, framework="numpy"):
                return []
        import torch

        if zipfile.is_zipfile(path):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        torch.load(path, map_location="cpu", weights_only=True)  # the format before torch 1.6
        return []
    except (SafetensorError, pickle.UnpicklingError, *BROKEN) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{path}: expected {suffix} weights, found a file that cannot be read: {first}",
            hint="taken are safetensors and what torch.save makes of tensors",
        ) from error
