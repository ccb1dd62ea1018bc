"""An installed distribution with plug-ins: a folder with modules and a dist-info, to be put on sys.path."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "plugins.md"
SCORERS = {"sharpness": "stylear_example.sharpness:SharpnessScorer"}
SYNTHESIZERS = {"tint": "stylear_example.tint:TintSynthesizer"}


def documented_modules() -> dict[str, str]:
    """The modules of the example in docs/plugins.md, by path."""
    blocks = re.findall(
        r"```python\n# (stylear_example/\S+)\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL
    )
    return {"stylear_example/__init__.py": "", **dict(blocks)}


def install_distribution(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    name: str = "stylear-example",
    version: str = "1.0",
    modules: Mapping[str, str] | None = None,
    scorers: Mapping[str, str] = SCORERS,
    synthesizers: Mapping[str, str] = SYNTHESIZERS,
) -> None:
    """Write a distribution into `folder` and put it on sys.path, its modules not imported yet."""
    modules = documented_modules() if modules is None else modules
    for path, text in modules.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        monkeypatch.delitem(sys.modules, module, raising=False)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8"
    )
    lines = ["[stylear.scorers]", *(f"{key} = {value}" for key, value in scorers.items())]
    lines += [
        "[stylear.synthesizers]",
        *(f"{key} = {value}" for key, value in synthesizers.items()),
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")
    monkeypatch.syspath_prepend(folder)
