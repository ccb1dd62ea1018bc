"""Settings: every stage ran with the settings that recipe.yaml has, and only committed files are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.audit.conservation import entry_file
from stylear.curate.audit.difference import Difference
from stylear.curate.corpus.layout import COLUMNS, DIVERSITY, KINDS, MANIFEST, MIX, PLAN, VERDICTS
from stylear.curate.corpus.ledger import ALL, Ledger, flatten_settings
from stylear.curate.corpus.split import SPLITS
from stylear.curate.fetch.step import fetch_inputs
from stylear.curate.filter.step import make_filter_settings
from stylear.curate.mix.step import make_mix_settings
from stylear.curate.pairs.step import make_pairs_settings
from stylear.curate.recipe.base import FileNamesOnly
from stylear.curate.score.passes import ledger_stage, list_scorers
from stylear.curate.stage import omit_keys
from stylear.curate.synthesize.step import make_synthesize_settings

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

OUTPUTS = (*KINDS, PLAN, "scores", *SPLITS, "preferences")
SINGLE_OUTPUTS = (VERDICTS, COLUMNS, DIVERSITY, MIX)


def check_recipe(corpus: Path, recipe: Recipe) -> Iterator[Difference]:
    """Settings of a stage's run that differ from those of the recipe."""
    ledger = Ledger(corpus)
    current: dict[str, Mapping[str, Any]] = {
        "fetch": fetch_inputs(recipe, ledger).settings,
        "filter": make_filter_settings(recipe),
        "mix": make_mix_settings(recipe),
        "pairs": make_pairs_settings(recipe),
    }
    if recipe.references:
        current["synthesize"] = make_synthesize_settings(recipe)
    for stage, settings in sorted(current.items()):
        if (entry := ledger.entry(stage, ALL)) is not None:
            yield from compare_settings(stage, ALL, settings, entry.settings)
    for spec in list_scorers(recipe):
        stage, settings = ledger_stage(spec), describe_scorer(spec)
        for entry in ledger.entries(stage):
            found = {"score": {n: entry.settings.get("score", {}).get(n) for n in settings}}
            yield from compare_settings(stage, entry.unit, {"score": settings}, found)


def describe_scorer(spec: Any) -> dict[str, Any]:
    """The settings of a scorer that do not depend on the machine."""
    values = omit_keys(spec.map_paths(FileNamesOnly()).model_dump(mode="json"), "device")
    return {name: value for name, value in values.items() if (name, value) != ("dtype", "auto")}


def compare_settings(
    stage: str, unit: str, expected: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[Difference]:
    """Settings of a ledger entry that are not those expected."""
    ours, theirs = flatten_settings(expected), flatten_settings(found)
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            expected_value, found_value = ours.get(key, "no such setting"), theirs.get(key, "none")
            yield Difference("recipe", entry_file(stage, unit), expected_value, found_value, key)


def check_committed(corpus: Path, files: Mapping[str, Mapping[str, Any]]) -> Iterator[Difference]:
    """Files whose hash in the ledger is not that of the manifest, and outputs that no stage committed."""
    ledger = Ledger(corpus)
    committed: set[str] = set()
    for stage in ledger.stages():
        for entry in ledger.entries(stage):
            for name, info in entry.files.items():
                committed.add(name)
                if name in files and dict(info) != dict(files[name]):
                    expected = f"{files[name]['bytes']} bytes of sha256 {files[name]['sha256']}"
                    found = f"{info['bytes']} bytes of sha256 {info['sha256']}"
                    yield Difference("ledger", entry_file(stage, entry.unit), expected, found, name)
    for name in sorted(set(files) - committed):
        if name.partition("/")[0] in OUTPUTS or name in SINGLE_OUTPUTS:
            yield Difference("ledger", MANIFEST, "a file that a stage committed", "another", name)
