"""Recipes and training settings that ship with the package, by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from stylear.errors import SourceError

MANIFESTS = Path(__file__).parent / "manifests"


def find_manifest(name_or_path: str | Path) -> Path:
    """The file that a path means, or a name such as `demo` for an embedded `demo.yaml`.

    A file that exists wins, and a name with a folder in it is never looked up. A folder of an embedded
    name, such as the corpus of an earlier run, does not hide it. Raises SourceError for a bare name that is
    none of these, with the nearest embedded names.
    """
    path, name = Path(name_or_path), str(name_or_path).removesuffix(".yaml")
    if path.is_file() or path.name != str(name_or_path):
        return path
    embedded = MANIFESTS / f"{name}.yaml"
    if embedded.is_file():
        return embedded
    if path.exists() or path.suffix:
        return path
    known = sorted(file.stem for file in MANIFESTS.glob("*.yaml"))
    close = difflib.get_close_matches(name, known, 3)
    raise SourceError(
        f"{name}: expected a file, or the name of an embedded one, found neither",
        hint=f"did you mean {' or '.join(close)}?" if close else f"embedded: {', '.join(known)}",
    )
