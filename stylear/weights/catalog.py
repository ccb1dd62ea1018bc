"""Catalog: the shipped models and their committed hashes, and the list of all models that have a name."""

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
class ShippedModel:
    """A model that ships with the package."""

    name: str
    purpose: str  # the first words of its model card
    bytes: int
    sha256: str  # of its file names and contents
    licence: str  # from its model card


def list_shipped(root: Path = MINI_MODELS) -> list[ShippedModel]:
    """The shipped models in the order of their names. Raises WeightsError if a model has no card."""
    from stylear.weights.files import hash_path

    models = []
    for directory in _directories(root):
        card = directory / "README.md"
        text = card.read_text("utf-8") if card.is_file() else ""
        licence, purpose = _LICENCE.search(text), _PURPOSE.search(text)
        if licence is None:
            raise WeightsError(f"{card}: expected a model card with a licence, found none")
        size = sum(file.stat().st_size for file in _files(directory))
        what = purpose[1] if purpose else ""
        models.append(ShippedModel(directory.name, what, size, hash_path(directory), licence[1]))
    return models


def list_models() -> list[dict[str, Any]]:
    """One row for each model name: shipped models first, then the registry, with the state of each."""
    from stylear.weights.registry import MODELS, format_bytes
    from stylear.weights.store import fetched_path, get_fetch_state, read_lock

    rows: list[dict[str, Any]] = [
        {
            "name": model.name,
            "purpose": model.purpose,
            "size": format_bytes(model.bytes),
            "licence": model.licence,
            "state": "shipped",
            "bytes": model.bytes,
            "sha256": model.sha256,
        }
        for model in list_shipped()
    ]
    lock = read_lock()
    for model in MODELS.values():
        state = get_fetch_state(model, lock)
        rows.append(
            {
                "name": model.name,
                "purpose": model.purpose,
                "size": model.size,
                "licence": model.licence,
                "state": state,
                "bytes": model.bytes,
                "is_size_exact": model.is_exact,
                "needed_by": model.needed_by,
                "source": model.source or None,
                "revision": model.revision if model.is_on_hub else None,
                "files": [file.name for file in model.files],
                "terms": model.terms or None,
                "path": str(fetched_path(model)) if state == "fetched" else None,
            }
        )
    return rows


def hash_files(root: Path = MINI_MODELS) -> dict[str, dict[str, Any]]:
    """SHA-256 and size of every file: {"<model>/<file>": {"sha256", "bytes"}}."""
    from stylear.weights.files import hash_path

    return {
        file.relative_to(root).as_posix(): {
            "sha256": hash_path(file),
            "bytes": file.stat().st_size,
        }
        for directory in _directories(root)
        for file in _files(directory)
    }


def write_hashes(root: Path = MINI_MODELS) -> Path:
    """Write the current hashes of all files to hashes.json; returns its path."""
    from stylear.weights.files import write_json

    write_json(root / HASHES_FILE, hash_files(root))
    return root / HASHES_FILE


def verify_shipped(root: Path = MINI_MODELS) -> int:
    """Check every shipped file against hashes.json; returns their number.

    Raises WeightsError naming the first file that is missing, changed or unknown.
    """
    from stylear.weights.files import read_json

    expected, actual = read_json(root / HASHES_FILE), hash_files(root)
    problems = [
        f"{name}: expected this shipped file, found nothing" for name in expected - actual.keys()
    ]
    problems += [f"{name}: expected no such file, found one" for name in actual - expected.keys()]
    problems += [
        f"{name}: expected sha256 {expected[name]['sha256']}, found {actual[name]['sha256']}"
        for name in sorted(expected.keys() & actual.keys())
        if expected[name] != actual[name]
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WeightsError(
            f"{sorted(problems)[0]}{more}",
            hint="reinstall the package; after retraining the shipped models, "
            "`stylear models verify --write` records the new files",
        )
    return len(expected)


def _directories(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []


def _files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file())
