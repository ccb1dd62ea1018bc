"""`stylear doctor`: the versions and hardware of this machine, and what is missing."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import typer

from stylear import __version__
from stylear.console import JsonOption, emit_json, emit_tables

PACKAGES = (
    "torch", "torchvision", "diffusers", "transformers", "open_clip_torch", "img2dataset",
    "webdataset", "segment-anything", "pillow", "pyarrow", "duckdb",
)  # fmt: skip
OPTIONAL = {
    "obstore": "corpora in object stores: pip install 'stylear[s3]'",
    "ray": "--engine ray: pip install 'stylear[ray]'",
    "pillow-heif": "HEIC photos: pip install pillow-heif",
}


def doctor(json: JsonOption = False) -> None:
    """Check this machine: versions, GPU, disk, models.

    Missing parts are listed with the command that installs them. The exit code is 1 if something that
    every command needs is missing.

    Example: stylear doctor
    """
    checks = [*check_python(), *check_packages(), *check_hardware(), *check_models()]
    broken = [check for check in checks if check["status"] == "missing"]
    if json:
        emit_json({"ok": not broken, "checks": checks})
    else:
        emit_tables([checks])
    if broken:
        raise typer.Exit(1)


def row(what: str, found: str, status: str = "ok", remedy: str | None = None) -> dict[str, Any]:
    """One check. `status` is ok, optional (a feature is off) or missing (every job needs it)."""
    return {"check": what, "found": found, "status": status, "remedy": remedy}


def check_python() -> list[dict[str, Any]]:
    """The versions of the toolkit and of Python."""
    return [
        row("stylear", f"{__version__} in {Path(sys.prefix)}"),
        row("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
    ]


def check_packages() -> list[dict[str, Any]]:
    """The versions of required and optional packages."""
    rows = []
    for name in PACKAGES:
        version = installed_version(name)
        remedy = None if version else f"pip install {name}, or run `make` again in a clone"
        rows.append(row(name, version or "not installed", "ok" if version else "missing", remedy))
    for name, feature in OPTIONAL.items():
        version = installed_version(name)
        rows.append(
            row(
                name,
                version or "not installed",
                "ok" if version else "optional",
                None if version else feature,
            )
        )
    return rows


def installed_version(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_hardware() -> list[dict[str, Any]]:
    """Cores, memory, free disk space in the working directory, and GPUs."""
    import os

    rows = [row("cores", str(len(os.sched_getaffinity(0))))]
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        rows.append(row("memory", f"{memory / 2**30:.0f} GiB"))
    disk = shutil.disk_usage(Path.cwd())
    rows.append(row("disk", f"{disk.free / 2**30:.0f} GiB free in {Path.cwd()}"))
    return [*rows, *check_gpus()]


def check_gpus() -> list[dict[str, Any]]:
    """The GPUs that PyTorch sees."""
    if installed_version("torch") is None:
        return []
    import torch

    if not torch.cuda.is_available():
        return [
            row(
                "gpu",
                "none",
                "optional",
                "the embedded models run without; SDXL and 7B models do not",
            )
        ]
    return [
        row(
            f"gpu {number}",
            f"{(device := torch.cuda.get_device_properties(number)).name},"
            f" {device.total_memory / 2**30:.0f} GiB",
        )
        for number in range(torch.cuda.device_count())
    ]


def check_models() -> list[dict[str, Any]]:
    """The shipped models, verified, and the downloaded ones."""
    from stylear.errors import WeightsError
    from stylear.weights.catalog import verify_shipped
    from stylear.weights.store import models_dir, read_lock

    rows = []
    try:
        rows.append(row("shipped models", f"{verify_shipped()} files as recorded"))
    except WeightsError as error:
        rows.append(row("shipped models", error.message, "missing", error.hint))
    fetched = sorted(read_lock())
    rows.append(
        row(
            "fetched models",
            f"{', '.join(fetched) or 'none'} in {models_dir()}",
            "ok" if fetched else "optional",
            None if fetched else "published models: stylear models list, stylear models fetch NAME",
        )
    )
    return rows
