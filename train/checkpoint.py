"""Checkpoints: a model directory, the optimiser state and the step, written atomically."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stylear.console import say
from stylear.errors import SettingsChanged, WeightsError
from stylear.model.open import load_model
from stylear.model.save import save_model
from stylear.model.style_model import StyleModel
from stylear.train.average import MovingAverage
from stylear.train.optim import Optimisers
from stylear.train.settings import Settings
from stylear.weights import files as weights

OPTIMISER, AVERAGE, STATE = "optimizer.safetensors", "ema.safetensors", "state.json"
VALIDATION_LOSS = "validation_loss"
# may differ when a run is resumed, because they change no weight except by rounding
RESUMABLE_CHANGES = {
    "out",
    "encoded",
    "save_every",
    "keep",
    "keep_best",
    "validate_every",
    "sample_every",
    "device",
    "accumulate",
    "checkpoint_blocks",
    "compile",
    "optimizer_kernels",
    "shard_base",
    "peak_tflops",
    "wandb",
}


@dataclass(frozen=True)
class Run:
    """The directory of a run: settings.json, metrics.jsonl, samples/, checkpoints/, final/."""

    root: Path

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def final(self) -> Path:
        return self.root / "final"

    def has_work(self) -> bool:
        """Whether the run has results that must not be overwritten."""
        return self.final.is_dir() or self.metrics.exists() or bool(self.checkpoints())

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(
            p for p in (self.root / "checkpoints").glob("step-*") if (p / STATE).is_file()
        )


def open_run(kind: str, settings: Settings, base_sha256: str) -> Run:
    """Create a run, or open it to resume. Raises SettingsChanged if it has other settings."""
    run = Run(settings.out)
    kept = {k: v for k, v in settings.model_dump(mode="json").items() if k not in RESUMABLE_CHANGES}
    expected = {"kind": kind, "base_sha256": base_sha256, **kept}
    path = run.root / "settings.json"
    if path.exists():
        saved = weights.read_json(path)
        changed = [
            key for key in sorted(set(saved) | set(expected)) if saved.get(key) != expected.get(key)
        ]
        if changed and not run.has_work():
            weights.write_json(path, expected)  # the earlier call trained nothing
        elif changed == ["steps"] and settings.steps > int(saved["steps"]):
            extend_run(run, settings, int(saved["steps"]), expected)
        elif changed:
            key = changed[0]
            raise SettingsChanged(
                f"{run.root}: made with {key} = {saved.get(key)!r}, now {expected.get(key)!r}",
                hint="give another --out, or remove the old run",
            )
    else:
        if run.root.exists() and any(p.name != "encoded" for p in run.root.iterdir()):
            raise SettingsChanged(
                f"{run.root}: expected an empty directory or a run, found other files",
                hint="give another --out",
            )
        run.root.mkdir(parents=True, exist_ok=True)
        weights.write_json(path, expected)
    return run


def extend_run(run: Run, settings: Settings, steps: int, settings_json: Mapping[str, Any]) -> None:
    """Extend a finished run of `steps` steps. Raises SettingsChanged if its last checkpoint was removed."""
    if run.final.is_dir() and not (run.root / "checkpoints" / format_step(steps)).is_dir():
        raise SettingsChanged(
            f"{run.root}: finished after {steps} steps, and its last checkpoint was removed",
            hint=f"start from its model with another --out: --model {run.root}",
        )
    if settings.schedule != "constant":
        say(
            f"{run.root}: extended from {steps} to {settings.steps} steps; the {settings.schedule} schedule"
            " is stretched from here, so the result differs from a run of that length"
        )
    # first, so that the run counts as unfinished whatever happens next
    shutil.rmtree(run.final, ignore_errors=True)
    weights.write_json(run.root / "settings.json", settings_json)


def format_step(step: int) -> str:
    return f"step-{step:07d}"


def save_checkpoint(
    run: Run,
    model: StyleModel,
    optimisers: Optimisers,
    step: int,
    keep: int,
    *,
    average: MovingAverage | None = None,
    validation_loss: float | None = None,
    keep_best: bool = False,
) -> None:
    """Write the checkpoint of a step in full precision; keep only the newest `keep`.

    With `keep_best`, the one of the lowest validation loss is kept too. The state file is written last, and
    the directory gets its name when it is complete.
    """
    target = run.root / "checkpoints" / format_step(step)
    partial = target.with_name(f".{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    save_model(model, partial, dtype=None)
    weights.write_tensors(partial / OPTIMISER, optimisers.tensors())
    if average is not None:
        weights.write_tensors(partial / AVERAGE, average.tensors())
    loss = {} if validation_loss is None else {VALIDATION_LOSS: validation_loss}
    weights.write_json(partial / STATE, {"step": step, **loss})
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
    best = find_best_checkpoint(run) if keep_best else None
    for old in run.checkpoints()[:-keep]:
        if old != best:
            shutil.rmtree(old)


def find_last_checkpoint(run: Run) -> Path | None:
    """The newest complete checkpoint; None if there is none."""
    checkpoints = run.checkpoints()
    return checkpoints[-1] if checkpoints else None


def find_best_checkpoint(run: Run) -> Path | None:
    """The checkpoint of the lowest validation loss, the first of equals; None if none was validated."""
    losses = {
        path: weights.read_json(path / STATE).get(VALIDATION_LOSS) for path in run.checkpoints()
    }
    validated = {path: float(loss) for path, loss in losses.items() if loss is not None}
    return min(validated, key=lambda path: validated[path], default=None)


def restore_model(checkpoint: Path, base: StyleModel) -> tuple[StyleModel, int]:
    """The model of a checkpoint and the number of steps it was trained for.

    It is on the device of `base`, its decoder in the same dtype and the trained weights in float32. Raises
    WeightsError if the checkpoint has another architecture than the run's base.
    """
    state = weights.read_json(checkpoint / STATE)
    if not isinstance(state.get("step"), int):
        raise WeightsError(f"{checkpoint / STATE}: expected a step number, found {state!r}")
    dtype = base.decoder.model.norm.weight.dtype
    model = load_model(checkpoint, base.device, dtype, trained_dtype=torch.float32)
    expected, found = vars(base.decoder.config), vars(model.decoder.config)
    for name, value in expected.items():
        if found.get(name) != value:
            raise WeightsError(
                f"{checkpoint}: {name} expected {value!r} as {base.name} has, found {found.get(name)!r}",
                hint="the checkpoint belongs to another run; give another --out",
            )
    return model, int(state["step"])


def restore_optimisers(checkpoint: Path, optimisers: Optimisers) -> None:
    path = checkpoint / OPTIMISER
    optimisers.load_tensors(weights.read_tensors(path), str(path))


def restore_average(checkpoint: Path, average: MovingAverage) -> None:
    path = checkpoint / AVERAGE
    average.load_tensors(weights.read_tensors(path), str(path))
