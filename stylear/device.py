"""Pick the torch device that work runs on."""

from __future__ import annotations

from stylear.errors import UsageError


def pick_device(name: str, setting: str = "--device") -> str:
    """Resolve the name of a torch device; `auto` is a GPU if there is one.

    Raises UsageError, naming the setting, if the device does not exist.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        available = ["cpu"]
        if torch.cuda.is_available():
            available += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        raise UsageError(
            f"{setting}: expected a device of this machine ({', '.join(available)}), found {name!r}",
            hint="use cpu, or auto to use a GPU if there is one",
        ) from error
    return name
