"""Metrics of a run: metrics.jsonl, TensorBoard and, on request, Weights & Biases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from stylear.errors import UsageError
from stylear.pair import digest
from stylear.train.checkpoint import Run
from stylear.train.settings import Settings
from stylear.weights import files as weights

# what differs from run to run of the same settings
TIMINGS = ("step_s", "data_s", "tokens_per_s", "pairs_per_s", "mfu", "peak_memory_gib")


class Metrics:
    """Writers of a run's metrics; on resume, lines after the starting step are dropped, `past` has the rest.

    A process that is not the first of its run writes nothing and has no past.
    """

    def __init__(self, run: Run, start: int, settings: Settings, *, is_first: bool = True) -> None:
        self._is_first = is_first
        self.past: list[dict[str, Any]] = []
        if not is_first:
            return
        from torch.utils.tensorboard import SummaryWriter

        lines = read_metrics(run.metrics) if run.metrics.exists() else []
        self.past = [line for line in lines if line["step"] <= start]
        text = "".join(json.dumps(line) + "\n" for line in self.past)
        weights.write_bytes(run.metrics, text.encode())
        self._file = run.metrics.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run.root / "tensorboard"), purge_step=start or None)
        self._wandb: Any = None
        if settings.wandb is not None:
            self._wandb = import_wandb().init(
                project=settings.wandb,
                name=run.root.resolve().name,
                id=digest("wandb", str(run.root.resolve()))[:16],
                resume="allow",
                dir=str(run.root),
                config=settings.model_dump(mode="json"),
            )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line to metrics.jsonl and a point to each curve elsewhere."""
        if not self._is_first:
            return
        rounded = {name: float(f"{float(value):.7g}") for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **rounded}) + "\n")
        self._file.flush()
        for name, value in rounded.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(rounded, step=step)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_first:
            return
        self._file.close()
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def check_wandb(settings: Settings) -> None:
    """Raise UsageError if the settings ask for Weights & Biases and it is not installed."""
    if settings.wandb is not None:
        import_wandb()


def import_wandb() -> Any:
    """The wandb package. Raises UsageError if it is not installed."""
    try:
        return import_module("wandb")
    except ImportError as error:
        raise UsageError(
            "wandb: expected the package wandb, found none",
            hint="pip install wandb, or leave --wandb out: metrics.jsonl and tensorboard/ are always written",
        ) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
