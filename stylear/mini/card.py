"""Model cards of the mini family: what it is, made from what, by which command, how good."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

CARD = """---
license: apache-2.0
library_name: stylear
tags: [stylear, mini]
---
# {title}

{what}

- **Data:** {data}
- **Command:** `{command}`
- **Training time:** {minutes:.1f} minutes on {hardware}.
- **Made from** drawings of Noto Emoji (Apache-2.0) and Twemoji (CC-BY 4.0); see `mini/NOTICE.md`.

| measured on what it never saw | |
|---|---|
{rows}

It is small so that the whole system runs offline. It knows the things and words of the mini corpus and
nothing else; do not use it to judge other pictures.
"""


def hardware(device: str) -> str:
    """The device that a model is trained on, in words."""
    import torch

    if device.startswith("cuda"):
        return f"one {torch.cuda.get_device_name(device)}"
    return f"{os.cpu_count()} CPU cores"


def write_card(
    directory: Path,
    *,
    title: str,
    what: str,
    data: str,
    command: str,
    hardware: str,
    seconds: float,
    measured: Mapping[str, float | str],
) -> None:
    """Write `README.md` beside the weights. Floats are shown to four significant digits."""
    rows = "\n".join(
        f"| {name} | {value:.4g} |" if isinstance(value, float) else f"| {name} | {value} |"
        for name, value in measured.items()
    )
    text = CARD.format(
        title=title,
        what=what,
        data=data,
        command=command,
        minutes=seconds / 60,
        hardware=hardware,
        rows=rows,
    )
    (directory / "README.md").write_text(text, encoding="utf-8")
