"""The torch device that a command runs on, picked in one place."""

from __future__ import annotations

from stylear.errors import UsageError


def pick_device(name: str) -> str:
    """The torch device that `--device` means; auto is a GPU where there is one.

    Raises UsageError for a device that is not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"--device: expected a device of this machine, found {name!r}", hint="use --device cpu"
        ) from error
    return name
