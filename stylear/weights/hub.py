"""Hub: the files of a registered model at its source, their commit and their hashes."""

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
from stylear.weights.http import TOKEN_HINT, get_endpoint, read_json, retry_transient
from stylear.weights.registry import File, Model, format_bytes

WEIGHTS = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
TEXTS = (".json", ".txt")
MAX_SIZE_RATIO = 2  # our choice: how many times its registered size a model may have
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a model at its source."""

    revision: str  # the hub's commit; "" for a plain URL, whose files have registered hashes
    files: Mapping[str, Remote]  # by name in the model's directory

    @property
    def bytes(self) -> int:
        return sum(remote.bytes for remote in self.files.values())


def list_model_files(model: Model, revision: str = "") -> Listing:
    """The files of a model at `revision`, or at the registered revision.

    Raises WeightsError if the source cannot be reached, lacks a file, is much larger than registered, or
    has an unsafe file name.
    """
    terms = f"accept the licence at {model.terms}, then set HF_TOKEN to the token of that account"
    hint = terms if model.terms else TOKEN_HINT
    if not model.is_on_hub:
        files = {
            file.local or file.name: Remote(
                f"{model.source}/{quote(file.name)}", file.bytes, file.sha256, hint=hint
            )
            for file in model.files
        }
        return Listing("", files)
    revision = revision or model.revision
    base = get_endpoint()
    url = f"{base}/api/models/{model.source}/revision/{quote(revision, safe='')}?blobs=true"
    answer = retry_transient(lambda: read_json(url, hint=hint))
    commit = answer.get("sha")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise WeightsError(f"{model.source}: expected a commit id from the hub, found {commit!r}")
    if _COMMIT.fullmatch(revision) and commit != revision:
        raise WeightsError(f"{model.source}: expected commit {revision}, found {commit}")
    entries = {str(entry.get("rfilename")): entry for entry in _entries(answer)}
    files = {}
    for file in model.files:
        for name in _match_files(model, file, entries, commit):
            url = f"{base}/{model.source}/resolve/{commit}/{quote(name)}"
            files[_check_name(model, file.local or name)] = _remote(
                model, file, url, entries[name], hint
            )
    listing = Listing(commit, files)
    if listing.bytes > MAX_SIZE_RATIO * model.bytes:
        raise WeightsError(
            f"{model.name}: expected {model.size}, found {format_bytes(listing.bytes)} at {model.source}",
            hint=CHANGED,
        )
    return listing


def _entries(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    siblings = answer.get("siblings")
    return [s for s in siblings if isinstance(s, dict)] if isinstance(siblings, list) else []


def _match_files(model: Model, file: File, entries: Mapping[str, Any], commit: str) -> list[str]:
    """The names at the source that match a registered pattern; the first alternative with a match wins."""
    names: list[str] = []
    for pattern in file.name.split("|"):
        names = sorted(name for name in entries if _matches(name, pattern))
        if names and not (file.local and len(names) > 1):
            return [_check_name(model, name) for name in names]
    raise WeightsError(
        f"{model.name}: expected {file.name} in {model.source} at {commit[:12]}, found "
        f"{'more than one' if file.local and names else 'no such file'}",
        hint=CHANGED,
    )


def _matches(name: str, pattern: str) -> bool:
    """Whether a name matches a pattern in which `*` does not cross folders."""
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def is_safe_name(name: str) -> bool:
    """Whether a file name stays inside its directory: no `..`, no hidden or absolute parts."""
    return all(
        part and not part.startswith(".") and not set(part) & set("\\:\0")
        for part in name.split("/")
    )


def _check_name(model: Model, name: str) -> str:
    if not is_safe_name(name):
        raise WeightsError(
            f"{model.source}: expected plain file names, found {name!r}",
            hint="do not trust this source",
        )
    if PurePosixPath(name).suffix not in (*WEIGHTS, *TEXTS):
        raise WeightsError(
            f"{model.source}: expected weights or configuration files, found {name!r}",
            hint=f"accepted are {', '.join((*WEIGHTS, *TEXTS))}",
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
