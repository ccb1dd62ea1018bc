"""Preview a synthesis: the images it would draw and the models it needs, without drawing anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from stylear.curate.corpus.ledger import describe_differences
from stylear.curate.corpus.split import assign_split
from stylear.curate.recipe.synthesizers import parse_backend_settings
from stylear.curate.references import StyleReference, load_references
from stylear.curate.synthesize.generations import Generation, list_earlier_groups, read_generations
from stylear.curate.synthesize.plan import Plan, plan_jobs
from stylear.curate.synthesize.prompts.destyle import destyle
from stylear.curate.synthesize.prompts.sources import Content
from stylear.curate.synthesize.raw_contents import read_kept_contents
from stylear.curate.synthesize.step import make_synthesize_inputs, pairs_per_shard
from stylear.errors import WeightsError
from stylear.weights.names import resolve_model

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe
    from stylear.curate.stage import Build

EXAMPLES = 5
EXAMPLE_SEARCH = 10_000  # prompts searched for examples that de-stylising changed


def preview_plan(build: Build) -> dict[str, Any]:
    """The plan of `synthesize` for a corpus: counts by split, examples, models.

    If a corpus has stylized pairs already, these are the images that its growth would add. Raises
    CorpusError if the raw pairs were not fetched, and whatever planning raises.
    """
    recipe = build.recipe
    references = load_references(recipe)
    generations = read_kept_generations(build)
    jobs = plan_jobs(
        read_kept_contents(build), references, recipe, list_earlier_groups(generations)
    )
    examples = [describe_example(row) for row in islice(_choose_examples(jobs), EXAMPLES)]
    return {
        "backend": recipe.synthesize.backend,
        "images": len(jobs),
        "images_planned_before": sum(len(generation.jobs) for generation in generations),
        "shards": -(-len(jobs) // pairs_per_shard(recipe)),
        "splits": count_by_split(jobs, references, recipe),
        "contents_per_style": jobs.contents_per_style(),
        "prompts_skipped": dict(sorted(jobs.skipped.items())),
        "examples": examples,
        "models": list_models(recipe),
    }


def read_kept_generations(build: Build) -> list[Generation]:
    """The generations of the plan that a run would keep: none with other settings than the recipe's."""
    try:
        inputs = replace(make_synthesize_inputs(build.recipe, build.ledger), weights=())
    except WeightsError:
        return []
    generations = read_generations(build)
    if any(
        describe_differences(generation.entry, inputs, inputs=False) for generation in generations
    ):
        return []
    return generations


def count_by_split(
    jobs: Plan, references: Sequence[StyleReference], recipe: Recipe
) -> list[dict[str, Any]]:
    """Prompts, styles, references, candidates and images of each split and in total."""
    rows, styles = jobs.group_indices()
    splits = [assign_split(r.id, recipe.seed, recipe.mix.val_fraction) for r in references]
    in_val = np.array([split == "val" for split in splits])[styles]
    counts = []
    for name, mask in (("train", ~in_val), ("val", in_val), ("all", np.ones(len(rows), bool))):
        used = np.unique(styles[mask])
        counts.append(
            {
                "split": name,
                "prompts": len(np.unique(rows[mask])),
                "styles": len({references[index].style for index in used}),
                "references": len(used),
                "candidates": recipe.synthesize.candidates,
                "images": int(mask.sum()) * recipe.synthesize.candidates,
            }
        )
    return counts


def _choose_examples(jobs: Plan) -> Iterator[Content]:
    """Contents of a plan to show as examples: first those that de-stylising changed."""
    seen: dict[Content, None] = {}
    for content, _ in islice(jobs.groups(), EXAMPLE_SEARCH):
        seen[content] = None
    changed = (content for content in seen if content.original is not None)
    return chain(changed, (content for content in seen if content.original is None))


def describe_example(row: Content) -> dict[str, Any]:
    """A prompt before and after de-stylising, and the words removed."""
    removed = destyle(row.original).removed if row.original is not None else ()
    return {"before": row.original or row.caption, "prompt": row.caption, "removed": list(removed)}


def list_models(recipe: Recipe) -> list[dict[str, Any]]:
    """The models that the backend reads, by setting: the path of each, or how to get it."""
    models: list[dict[str, Any]] = []
    settings = parse_backend_settings(recipe.synthesize.backend, recipe.synthesize.settings)
    for setting in settings.paths:
        name = getattr(settings, setting)
        if name is None:
            continue
        row: dict[str, Any] = {"setting": setting, "model": str(name), "found": None, "hint": None}
        try:
            row["found"] = str(resolve_model(str(name)))
        except WeightsError as error:
            row["hint"] = f"missing; {error.hint}"
        models.append(row)
    return models


def to_tables(preview: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """A preview as tables for the terminal."""
    met = sorted(preview["contents_per_style"].items(), key=lambda item: (item[1], item[0]))
    summary = [
        {"": "backend", "planned": preview["backend"]},
        {"": "shards", "planned": preview["shards"]},
        {"": "images planned before", "planned": preview["images_planned_before"]},
        {"": "fewest contents", "planned": f"{met[0][1]} ({met[0][0]})"},
        {"": "most contents", "planned": f"{met[-1][1]} ({met[-1][0]})"},
    ]
    summary += [
        {"": f"prompts skipped: {reason}", "planned": count}
        for reason, count in preview["prompts_skipped"].items()
    ]
    examples = [
        {"before": _shorten(row["before"]), "prompt": _shorten(row["prompt"])}
        for row in preview["examples"]
    ]
    models = [
        {"setting": row["setting"], "model": row["model"], "state": row["hint"] or "found"}
        for row in preview["models"]
    ]
    return [preview["splits"], summary, examples, models]


def _shorten(text: str, width: int = 60) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
