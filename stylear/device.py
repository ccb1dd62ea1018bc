"""The torch device that work runs on, picked in one place."""

from __future__ import annotations

from stylear.errors import UsageError


def pick_device(name: str, setting: str = "--device") -> str:
    """The torch device that a name means; `auto` is a GPU where there is one.

    Raises UsageError, naming the setting, for a device that is not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        there = ["cpu"]
        if torch.cuda.is_available():
            there += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        raise UsageError(
            f"{setting}: expected a device of this machine ({', '.join(there)}), found {name!r}",
            hint="use cpu, or auto for a GPU where there is one",
        ) from error
    return name
