"""Rates of the stages in pairs per second, as measured by earlier runs on this machine.

They are kept in the user's cache, because the bytes of a corpus must not depend on how fast it was built.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylear.curate.corpus.storage import write_text
from stylear.errors import StorageError

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe
    from stylear.curate.stage import Build

HERE = "earlier runs here"
BENCHMARK = "benchmarks/results, 2 CPU cores"
BENCHMARKS = {  # pairs per second, with 1,000,000 pairs and, for mix, 20 kB per image
    "filter": 64_000.0,
    "mix": 13_000.0,
    "pairs": 147_000.0,
}
MIN_S = 1.0  # shorter runs mostly measure the start-up (our choice)


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate, and where it was measured."""

    pairs_per_s: float
    measured_by: str


def rates_path() -> Path:
    """The file of rates: stylear/rates.json in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "stylear" / "rates.json"


def find_rate(stage: str, build: Build) -> Rate | None:
    """The rate of a stage with these settings; None if it was never measured."""
    rate = read_rates().get(rate_key(stage, build))
    if rate is not None:
        return Rate(rate, HERE)
    return Rate(BENCHMARKS[stage], BENCHMARK) if stage in BENCHMARKS else None


def record_rate(stage: str, build: Build, pairs: int, seconds: float) -> None:
    """Store the rate of a stage. A cache that cannot be written is ignored."""
    if pairs < 1 or seconds < MIN_S:
        return
    rates = read_rates() | {rate_key(stage, build): pairs / seconds}
    try:
        rates_path().parent.mkdir(parents=True, exist_ok=True)
        write_text(rates_path(), json.dumps(dict(sorted(rates.items())), indent=1) + "\n")
    except (OSError, StorageError):
        return


def read_rates() -> dict[str, float]:
    """The rates by key; empty if the file is missing or damaged."""
    try:
        rates = json.loads(rates_path().read_text("utf-8"))
        return {str(key): float(rate) for key, rate in rates.items() if float(rate) > 0}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def rate_key(stage: str, build: Build) -> str:
    """The key of a stage's rate: everything that affects it, such as image size, engine and workers."""
    recipe = build.recipe
    parts = [stage, f"{recipe.image.size}px", f"{build.engine.name} {build.workers or 'all'}"]
    return " | ".join([*parts, *stage_settings(stage, recipe)])


def stage_settings(stage: str, recipe: Recipe) -> list[str]:
    """The settings that affect the rate of a stage, as short texts without paths."""
    match stage:
        case "fetch":
            return sorted({source.type for source in recipe.raw})
        case "synthesize":
            values = recipe.synthesize.settings
            names = ("size", "steps", "levels", "device", "dtype", "batch_size", "offload")
            named = [f"{name} {values[name]}" for name in names if name in values]
            models = [Path(str(values[n])).name for n in ("model", "lora") if values.get(n)]
            return [recipe.synthesize.backend, *named, *models]
        case "score":
            return sorted(
                f"{spec.type} {Path(str(getattr(spec, 'model', ''))).name}".strip()
                for spec in recipe.score
            )
        case _:
            return []
