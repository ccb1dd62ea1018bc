"""Hub: which files a registered model has at its source, at which commit, with which hashes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from stylear.errors import WeightsError
from stylear.weights.download import CHANGED, Remote
from stylear.weights.http import TOKEN_HINT, endpoint, persist, read_json
from stylear.weights.registry import File, Model, human

WEIGHTS = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
TEXTS = (".json", ".txt")
SLACK = 2  # ours: how many times its rough size a model may have
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Listing:
    """What a model consists of at its source."""

    revision: str  # the hub's commit; "" for a plain URL, whose files are known by their hashes
    files: Mapping[str, Remote]  # by name in the model's directory

    @property
    def bytes(self) -> int:
        return sum(remote.bytes for remote in self.files.values())


def listing(model: Model, revision: str = "") -> Listing:
    """The files of a model at `revision`, or at the registered one.

    Raises WeightsError when the source cannot be asked, lacks a file, has more than is registered
    or names a file that may not be written.
    """
    hint = f"accept the licence at {model.terms}, then {TOKEN_HINT}" if model.terms else TOKEN_HINT
    if not model.on_hub:
        files = {
            file.local or file.name: Remote(
                f"{model.source}/{quote(file.name)}", file.bytes, file.sha256, hint=hint
            )
            for file in model.files
        }
        return Listing("", files)
    revision = revision or model.revision
    base = endpoint()
    url = f"{base}/api/models/{model.source}/revision/{quote(revision, safe='')}?blobs=true"
    said = persist(lambda: read_json(url, hint=hint))
    commit = said.get("sha")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise WeightsError(f"{model.source}: expected a commit id from the hub, found {commit!r}")
    if _COMMIT.fullmatch(revision) and commit != revision:
        raise WeightsError(f"{model.source}: expected commit {revision}, found {commit}")
    there = {str(entry.get("rfilename")): entry for entry in _entries(said)}
    files = {}
    for file in model.files:
        for name in _chosen(model, file, there, commit):
            url = f"{base}/{model.source}/resolve/{commit}/{quote(name)}"
            files[_safe(model, file.local or name)] = _remote(model, file, url, there[name], hint)
    found = Listing(commit, files)
    if found.bytes > SLACK * model.bytes:
        raise WeightsError(
            f"{model.name}: expected {model.size}, found {human(found.bytes)} at {model.source}",
            hint=CHANGED,
        )
    return found


def _entries(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    siblings = said.get("siblings")
    return [s for s in siblings if isinstance(s, dict)] if isinstance(siblings, list) else []


def _chosen(model: Model, file: File, there: Mapping[str, Any], commit: str) -> list[str]:
    """The names at the source that a registered name stands for; the first alternative wins."""
    found: list[str] = []
    for pattern in file.name.split("|"):
        found = sorted(name for name in there if _matches(name, pattern))
        if found and not (file.local and len(found) > 1):
            return [_safe(model, name) for name in found]
    raise WeightsError(
        f"{model.name}: expected {file.name} in {model.source} at {commit[:12]}, found "
        f"{'more than one' if file.local and found else 'no such file'}",
        hint=CHANGED,
    )


def _matches(name: str, pattern: str) -> bool:
    """`*` stays within a folder."""
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def safe_name(name: str) -> bool:
    """Whether a name may be written below a directory: plain parts, none hidden, none `..`."""
    return all(
        part and not part.startswith(".") and not set(part) & set("\\:\0")
        for part in name.split("/")
    )


def _safe(model: Model, name: str) -> str:
    if not safe_name(name):
        raise WeightsError(
            f"{model.source}: expected plain file names, found {name!r}",
            hint="this source is not to be trusted",
        )
    if PurePosixPath(name).suffix not in (*WEIGHTS, *TEXTS):
        raise WeightsError(
            f"{model.source}: expected weights or their configuration, found {name!r}",
            hint=f"taken are {', '.join((*WEIGHTS, *TEXTS))}",
        )
    return name


def _remote(model: Model, file: File, url: str, entry: Mapping[str, Any], hint: str) -> Remote:
    lfs = entry.get("lfs") if isinstance(entry.get("lfs"), dict) else {}
    size = (lfs or {}).get("size", entry.get("size"))
    if not isinstance(size, int) or size < 0:
        raise WeightsError(f"{url}: expected the file's size from the hub, found {size!r}")
    sha256 = str((lfs or {}).get("sha256") or "")
    git = "" if sha256 else str(entry.get("blobId") or "")
    for what, expected, found in (("bytes", file.bytes, size), ("sha256", file.sha256, sha256)):
        if expected and found and found != expected:
            raise WeightsError(
                f"{model.name}: {file.name}: {what} expected {expected}, found {found} at the hub",
                hint=CHANGED,
            )
    return Remote(url, size, sha256 or file.sha256, git if not file.sha256 else "", hint)
