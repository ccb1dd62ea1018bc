"""Models at a fake hub, and what a fetch of them leaves, for tests of fetching."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from builders.fake_hub import FakeHub
from stylear.weights.registry import File, Model

CHILD = Path(__file__).parent / "fetch_child.py"
CONFIG = b'{"size": 1}\n'
TENSORS = save({"w": torch.arange(250_000, dtype=torch.float32)})  # 1 MB
W = "w.safetensors"
W_PATH, CONFIG_PATH = f"org/repo/{W}", "org/repo/config.json"


def hub_model(name: str = "tiny", *files: str, **more: Any) -> Model:
    chosen = tuple(File(f) for f in files or (W, "config.json"))
    facts: dict[str, Any] = {"about_bytes": 1_000_000, "revision": "main"} | more
    return Model(name, "a tiny model", "org/repo", chosen, "MIT", "tests", **facts)


def url_model(site: FakeHub, data: bytes, name: str = "w.pth", **known: Any) -> Model:
    """A model of one file at a plain URL."""
    site.files[f"plain/{name}"] = data
    known = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} | known
    file = File(name, "", known["bytes"], known["sha256"])
    return Model("flat", "a flat model", f"{site.url}/plain", (file,), "MIT", "tests", main=name)


def list_files(place: Path) -> list[str]:
    """Every file below the models directory, lock holders aside."""
    return sorted(
        path.relative_to(place).as_posix()
        for path in place.rglob("*")
        if path.is_file() and not path.name.endswith(".held")
    )


def torch_bytes(path: Path, value: object) -> bytes:
    torch.save(value, path)
    return path.read_bytes()


def start_command(site: FakeHub, place: Path, model: Model, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"STYLEAR_MODELS": str(place), "HF_ENDPOINT": site.url}
    return subprocess.Popen(
        [sys.executable, str(CHILD), json.dumps([asdict(model)]), *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
