"""Memory: how much weights need, how much there is, and what would fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stylear.errors import WeightsError

if TYPE_CHECKING:
    import torch

GB = 10**9
_MEMINFO = Path("/proc/meminfo")


def measure_free_memory(device: torch.device | str) -> int | None:
    """Free bytes of a GPU, or of main memory with swap; None where they cannot be measured."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        # what torch holds and does not use is free too
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type != "cpu" or not _MEMINFO.is_file():
        return None
    values = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    try:
        return sum(int(values[key].split()[0]) * 1024 for key in ("MemAvailable", "SwapFree"))
    except (KeyError, ValueError, IndexError):
        return None


def require_memory(
    parameters: int, dtype: torch.dtype, device: torch.device | str, what: str
) -> None:
    """Raise WeightsError if so many parameters do not fit into the free memory of a device."""
    free = measure_free_memory(device)
    needed = parameters * dtype.itemsize
    if free is None or needed <= free:
        return
    import torch

    place = "GPU memory" if torch.device(device).type == "cuda" else "main memory"
    raise WeightsError(
        f"{what}: {parameters / GB:.1f} B parameters in {str(dtype).removeprefix('torch.')} expected "
        f"{needed / GB:.1f} GB of {place}, found {free / GB:.1f} GB free",
        hint=suggest_what_fits(parameters, dtype, device, free),
    )


def suggest_what_fits(
    parameters: int, dtype: torch.dtype, device: torch.device | str, free: int
) -> str:
    """What to do about weights that do not fit into `free` bytes of a device."""
    import torch

    if dtype.itemsize > 2 and 2 * parameters <= free:
        return f"in half precision they fit: --dtype bfloat16 ({2 * parameters / GB:.1f} GB)"
    main = measure_free_memory("cpu")
    if torch.device(device).type == "cuda" and main is not None and 2 * parameters <= main:
        return (
            f"end what else uses the GPU, or use main memory, which is slow: --device cpu "
            f"--dtype bfloat16 ({2 * parameters / GB:.1f} GB)"
        )
    return f"the largest model that fits has {free / 2 / GB:.1f} B parameters in bfloat16"
