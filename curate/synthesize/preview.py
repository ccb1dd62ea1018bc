"""Preview: what a synthesis would draw, and what it still needs, without drawing anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from stylear.curate.corpus.split import split_of
from stylear.curate.recipe.synthesizers import backend_settings
from stylear.curate.references import StyleReference, load_references
from stylear.curate.synthesize.plan import Plan, plan
from stylear.curate.synthesize.prompts.destyle import destyle
from stylear.curate.synthesize.prompts.sources import Content
from stylear.curate.synthesize.step import kept_rows, shard_pairs
from stylear.errors import WeightsError
from stylear.weights.names import resolve

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe
    from stylear.curate.stage import Build

EXAMPLES = 5
LOOKED_AT = 10_000  # prompts among which a changed one is looked for


def preview_plan(build: Build) -> dict[str, Any]:
    """What `synthesize` would make of a corpus: counts by split, examples, models that are missing.

    Raises CorpusError when prompts come from raw pairs and these were not fetched, and what planning
    raises.
    """
    recipe = build.recipe
    references = load_references(recipe)
    jobs = plan(kept_rows(build), references, recipe)
    examples = [example(row) for row in islice(_telling(jobs), EXAMPLES)]
    return {
        "backend": recipe.synthesize.backend,
        "images": len(jobs),
        "shards": -(-len(jobs) // shard_pairs(recipe)),
        "splits": by_split(jobs, references, recipe),
        "contents_per_style": jobs.per_style(),
        "prompts_left_out": dict(sorted(jobs.skipped.items())),
        "examples": examples,
        "needs": needs(recipe),
    }


def by_split(
    jobs: Plan, references: Sequence[StyleReference], recipe: Recipe
) -> list[dict[str, Any]]:
    """One row a split, and one for all: prompts, styles, references, candidates, images."""
    rows, styles = jobs.columns()
    splits = [split_of(r.id, recipe.seed, recipe.mix.val_fraction) for r in references]
    in_val = np.array([split == "val" for split in splits])[styles]
    found = []
    for name, mask in (("train", ~in_val), ("val", in_val), ("all", np.ones(len(rows), bool))):
        used = np.unique(styles[mask])
        found.append(
            {
                "split": name,
                "prompts": len(np.unique(rows[mask])),
                "styles": len({references[place].style for place in used}),
                "references": len(used),
                "candidates": recipe.synthesize.candidates,
                "images": int(mask.sum()) * recipe.synthesize.candidates,
            }
        )
    return found


def _telling(jobs: Plan) -> Iterator[Content]:
    """The first contents of a plan, those first that de-stylising changed."""
    seen: dict[Content, None] = {}
    for content, _ in islice(jobs.groups(), LOOKED_AT):
        seen[content] = None
    changed = (content for content in seen if content.original is not None)
    return chain(changed, (content for content in seen if content.original is None))


def example(row: Content) -> dict[str, Any]:
    """A prompt before and after de-stylising, and what was removed."""
    removed = destyle(row.original).removed if row.original is not None else ()
    return {"before": row.original or row.caption, "prompt": row.caption, "removed": list(removed)}


def needs(recipe: Recipe) -> list[dict[str, Any]]:
    """The models that the backend reads, by setting: where each lies, or why it is missing."""
    found: list[dict[str, Any]] = []
    settings = backend_settings(recipe.synthesize.backend, recipe.synthesize.settings)
    for setting in settings.paths:
        name = getattr(settings, setting)
        if name is None:
            continue
        row: dict[str, Any] = {"setting": setting, "model": str(name), "found": None, "hint": None}
        try:
            row["found"] = str(resolve(str(name)))
        except WeightsError as error:
            row["hint"] = f"missing; {error.hint}"
        found.append(row)
    return found


def tables(preview: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """A preview as tables for a reader."""
    met = sorted(preview["contents_per_style"].items(), key=lambda item: (item[1], item[0]))
    summary = [
        {"": "backend", "planned": preview["backend"]},
        {"": "shards", "planned": preview["shards"]},
        {"": "fewest contents", "planned": f"{met[0][1]} ({met[0][0]})"},
        {"": "most contents", "planned": f"{met[-1][1]} ({met[-1][0]})"},
    ]
    summary += [
        {"": f"prompts left out: {reason}", "planned": count}
        for reason, count in preview["prompts_left_out"].items()
    ]
    examples = [
        {"before": _short(row["before"]), "prompt": _short(row["prompt"])}
        for row in preview["examples"]
    ]
    models = [
        {"needs": row["setting"], "model": row["model"], "state": row["hint"] or "there"}
        for row in preview["needs"]
    ]
    return [preview["splits"], summary, examples, models]


def _short(text: str, width: int = 60) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
