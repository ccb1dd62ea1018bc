"""Metrics of a run: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylear.train.checkpoint import Run
from stylear.weights import files as weights


class Metrics:
    """metrics.jsonl and TensorBoard; on resume, lines after the starting step are dropped."""

    def __init__(self, run: Run, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        lines = run.metrics.read_text(encoding="utf-8").splitlines() if run.metrics.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= start]
        weights.write_bytes(run.metrics, "".join(line + "\n" for line in kept).encode())
        self._file = run.metrics.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run.root / "tensorboard"), purge_step=start or None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line to metrics.jsonl and a point to each TensorBoard curve."""
        rounded = {name: round(float(value), 6) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **rounded}) + "\n")
        self._file.flush()
        for name, value in rounded.items():
            self._board.add_scalar(name, value, step)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
