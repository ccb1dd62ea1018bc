"""Models: the mini family and its committed hashes, what else can be had, any model by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylear.errors import WeightsError
from stylear.weights.names import MINI_MODELS

HASHES_FILE = "hashes.json"
_LICENCE = re.compile(r"^license:\s*(\S+)\s*$", re.MULTILINE)
_PURPOSE = re.compile(r"^# .*\n\n(.+?)(?: \(| of |:|\.\s)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Shipped:
    """A model that ships with the package."""

    name: str
    purpose: str  # how its model card begins
    bytes: int
    sha256: str  # of its file names and contents
    licence: str  # as its model card says


def list_shipped(root: Path = MINI_MODELS) -> list[Shipped]:
    """The models of the mini family, by name. Raises WeightsError when a model has no card."""
    from stylear.weights.files import sha256_of

    found = []
    for directory in _directories(root):
        card = directory / "README.md"
        text = card.read_text("utf-8") if card.is_file() else ""
        licence, purpose = _LICENCE.search(text), _PURPOSE.search(text)
        if licence is None:
            raise WeightsError(f"{card}: expected a model card with a licence, found none")
        size = sum(file.stat().st_size for file in _files(directory))
        what = purpose[1] if purpose else ""
        found.append(Shipped(directory.name, what, size, sha256_of(directory), licence[1]))
    return found


def list_models() -> list[dict[str, Any]]:
    """All that a name can mean: the mini family, then the registry, with where each of them is."""
    from stylear.weights.registry import MODELS, human
    from stylear.weights.store import fetch_state, path_in, read_lock

    rows: list[dict[str, Any]] = [
        {
            "name": model.name,
            "for": model.purpose,
            "size": human(model.bytes),
            "licence": model.licence,
            "where": "shipped",
            "bytes": model.bytes,
            "sha256": model.sha256,
        }
        for model in list_shipped()
    ]
    lock = read_lock()
    for model in MODELS.values():
        there = fetch_state(model, lock)
        rows.append(
            {
                "name": model.name,
                "for": model.purpose,
                "size": model.size,
                "licence": model.licence,
                "where": there,
                "bytes": model.bytes,
                "exact": model.exact,
                "needed_by": model.needed_by,
                "source": model.source or None,
                "revision": model.revision if model.on_hub else None,
                "files": [file.name for file in model.files],
                "terms": model.terms or None,
                "path": str(path_in(model)) if there == "fetched" else None,
            }
        )
    return rows


def hash_files(root: Path = MINI_MODELS) -> dict[str, dict[str, Any]]:
    """Every file of every model as {"<model>/<file>": {"sha256", "bytes"}}."""
    from stylear.weights.files import sha256_of

    return {
        file.relative_to(root).as_posix(): {
            "sha256": sha256_of(file),
            "bytes": file.stat().st_size,
        }
        for directory in _directories(root)
        for file in _files(directory)
    }


def write_hashes(root: Path = MINI_MODELS) -> Path:
    """Record the files as they are now in hashes.json."""
    from stylear.weights.files import write_json

    write_json(root / HASHES_FILE, hash_files(root))
    return root / HASHES_FILE


def verify(root: Path = MINI_MODELS) -> int:
    """Re-hash every file of the family against hashes.json; returns how many there are.

    Raises WeightsError naming the first file that is missing, changed or unknown.
    """
    from stylear.weights.files import read_json

    expected, found = read_json(root / HASHES_FILE), hash_files(root)
    problems = [
        f"{name}: expected in the family, found nothing" for name in expected - found.keys()
    ]
    problems += [f"{name}: expected nothing of that name" for name in found - expected.keys()]
    problems += [
        f"{name}: expected sha256 {expected[name]['sha256']}, found {found[name]['sha256']}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WeightsError(
            f"{sorted(problems)[0]}{more}",
            hint="install the package again; after training the family anew, "
            "`stylear models verify --write` records the new files",
        )
    return len(expected)


def _directories(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []


def _files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file())
