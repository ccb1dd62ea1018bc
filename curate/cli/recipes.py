"""Shared by the commands: load a recipe with overrides, and run one of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.console import emit_json, emit_table
from stylear.embedded import find_manifest
from stylear.errors import UsageError

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


def load_changed_recipe(
    recipe: Path,
    changes: list[str],
    min_success: float | None = None,
    allow_networks: Sequence[str] = (),
) -> Recipe:
    """The recipe with the overrides of --set, --min-success and --allow-network."""
    import yaml

    from stylear.curate.recipe import load_recipe, override_downloads

    overrides: dict[str, Any] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key:
            raise UsageError(
                f"--set {change}: expected KEY=VALUE, found no `=` after a key",
                hint="for example --set mix.val_fraction=0.2",
            )
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(
                f"--set {change}: expected a YAML value, found {value!r}",
                hint="quote values that contain : or brackets, e.g. --set 'name=\"a: b\"'",
            ) from error
    return override_downloads(
        load_recipe(find_manifest(recipe), overrides), min_success, allow_networks
    )


def run_stage(
    stage: str,
    recipe: Path | None,
    out: Path,
    workers: int,
    changes: list[str],
    redo: bool,
    json: bool,
    engine: str = "local",
    ray_address: str | None = None,
    min_success: float | None = None,
    allow_networks: Sequence[str] = (),
    allow_empty: bool = False,
) -> None:
    """Run one stage and print what it did."""
    from dataclasses import asdict

    from stylear.curate import run as runner
    from stylear.curate.engine import Engine

    path = recipe if recipe is not None else runner.require_recipe_path(out)
    loaded = load_changed_recipe(path, changes, min_success, allow_networks)
    results = runner.run_stages(
        [stage],
        loaded,
        out,
        workers=workers,
        redo=stage if redo else None,
        engine=Engine(engine, ray_address),
        allow_empty=allow_empty,
    )
    if json:
        emit_json([asdict(result) for result in results])
    else:
        emit_table([result.row() for result in results])
