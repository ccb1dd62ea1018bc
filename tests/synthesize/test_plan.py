"""The plan: which prompts, which references, how often; the same whatever the order of rows."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stylear.curate.corpus.split import assign_split
from stylear.curate.recipe.synthesis import SynthesizeSettings
from stylear.curate.references import StyleReference
from stylear.curate.synthesize.job import Encoding, make_stylized_pair
from stylear.curate.synthesize.plan import Plan, plan_jobs
from stylear.curate.synthesize.prompts.sources import Content
from stylear.errors import RecipeError, SourceError
from stylear.pair import content_id

MODELS = {"model": "m", "ip_adapter": "a"}


def style(name: str) -> StyleReference:
    return StyleReference(name, b"", hashlib.sha256(name.encode()).hexdigest(), Path(name), False)


STYLES = [style("rows"), style("columns")]
FOUR = [style(name) for name in ("mosaic--00", "mosaic--01", "neon--00", "neon--01")]


def recipe(backend: str = "patch", **changes: Any) -> Any:
    """What planning reads of a recipe."""
    seed, fraction = changes.pop("seed", 0), changes.pop("val_fraction", 0.0)
    spec = {"references_per_content": 2, "settings": {}, **changes}
    if backend == "instantstyle":
        spec["settings"] = MODELS
    return SimpleNamespace(
        seed=seed,
        mix=SimpleNamespace(val_fraction=fraction),
        synthesize=SynthesizeSettings(backend=backend, **spec),
    )


def rows(count: int) -> list[Content]:
    return [Content(f"key{i}", f"a thing {i}", content_id(f"a thing {i}")) for i in range(count)]


def captions(*texts: str) -> list[Content]:
    return [Content(f"key{i}", text, content_id(text)) for i, text in enumerate(texts)]


def met(jobs: Plan) -> dict[str, int]:
    """Contents that each reference meets."""
    return dict(Counter(reference.id for _, reference in jobs.groups()))


def test_plan_is_the_same_whatever_the_order_of_rows() -> None:
    jobs = plan_jobs(rows(9), STYLES, recipe(contents=5, references_per_content=1))
    again = plan_jobs(rows(9)[::-1], STYLES, recipe(contents=5, references_per_content=1))
    assert list(jobs) == list(again)
    assert [j.key for j in jobs] == [j.key for j in again]
    other = plan_jobs(rows(9), STYLES, recipe(contents=5, references_per_content=1, seed=1))
    assert {j.parent for j in jobs} != {j.parent for j in other}


def test_plan_meets_its_quotas_and_uses_references_evenly() -> None:
    spec = recipe(contents=6, references_per_content=1, candidates=3)
    jobs = plan_jobs(rows(20), STYLES, spec)
    assert len(jobs) == 6 * 1 * 3
    assert len({j.key for j in jobs}) == 18
    assert set(Counter(j.group for j in jobs).values()) == {3}
    assert Counter(j.reference for j in jobs) == {"rows": 9, "columns": 9}
    assert {j.candidate for j in jobs} == {0, 1, 2}


def test_plan_takes_distinct_contents_before_second_hands() -> None:
    doubled = [
        Content(f"{row.key}{hand}", row.caption, row.content) for row in rows(4) for hand in "ab"
    ]
    jobs = plan_jobs(doubled, STYLES, recipe(contents=4))
    assert len({j.content for j in jobs}) == 4
    assert len({j.parent for j in plan_jobs(doubled, STYLES, recipe(contents=6))}) == 6


def test_plan_never_crosses_a_split() -> None:
    many = [style(f"style{i}") for i in range(12)]
    jobs = plan_jobs(rows(40), many, recipe(val_fraction=0.3))
    pairs = {(assign_split(j.content, 0, 0.3), assign_split(j.reference, 0, 0.3)) for j in jobs}
    assert pairs == {("train", "train"), ("val", "val")}


def test_a_plan_makes_the_same_job_each_time_it_is_asked() -> None:
    jobs = plan_jobs(rows(5), STYLES, recipe(contents=4, candidates=3))
    assert len(jobs) == 4 * 2 * 3 == len(list(jobs))
    assert jobs[7] == list(jobs)[7]
    assert jobs[-1] == jobs[23]
    assert jobs[5:8] == [jobs[5], jobs[6], jobs[7]]
    assert jobs[20:99] == [jobs[n] for n in range(20, 24)]
    with pytest.raises(IndexError):
        jobs[24]


def test_keys_follow_the_settings_that_decide_an_image() -> None:
    base = plan_jobs(rows(1), STYLES, recipe())
    same = plan_jobs(rows(1), STYLES, recipe(settings={"batch_size": 3, "content": 0.6}))
    changed = plan_jobs(rows(1), STYLES, recipe(settings={"content": 0.5}))
    assert [j.key for j in base] == [j.key for j in same]
    assert not {j.key for j in base} & {j.key for j in changed}


def test_prompts_come_from_a_file_for_backends_that_draw(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("# two prompts\na red cat\n\na blue boat\na red cat\n")
    jobs = plan_jobs([], STYLES, recipe("instantstyle", prompts=path))
    assert {j.prompt for j in jobs} == {"a red cat", "a blue boat"}
    assert {j.parent for j in jobs} == {None}
    assert {j.content for j in jobs} == {content_id("a red cat"), content_id("a blue boat")}
    with pytest.raises(RecipeError, match=r"synthesize\.prompts: backend patch"):
        plan_jobs([], STYLES, recipe(prompts=path))
    path.write_text("\n# nothing\n")
    with pytest.raises(SourceError, match="contains no prompt"):
        plan_jobs([], STYLES, recipe("instantstyle", prompts=path))
    absent = tmp_path / "absent.txt"
    with pytest.raises(SourceError, match="cannot read"):
        plan_jobs([], STYLES, recipe("instantstyle", prompts=absent))


def test_a_plan_without_jobs_is_an_error() -> None:
    with pytest.raises(RecipeError, match="no reference shares a split"):
        plan_jobs(rows(3), [], recipe())


# --- de-stylising -------------------------------------------------------------------------------


def test_a_destyled_prompt_keeps_its_parent_and_its_content() -> None:
    raw = captions("an oil painting of a fox, 8k", "a dog")
    jobs = plan_jobs(raw, STYLES[:1], recipe(destyle=True, candidates=1))
    by_parent = {job.parent: job for job in jobs}
    fox, dog = by_parent["key0"], by_parent["key1"]
    assert (fox.prompt, dog.prompt) == ("a fox", "a dog")
    assert fox.content == content_id("an oil painting of a fox, 8k")
    assert (fox.prompt_metadata, dog.prompt_metadata) == (
        {"style_removed": "an oil painting of | 8k"},
        {},
    )
    pair = make_stylized_pair(fox, None, Encoding(16), {"steps": 3})
    assert pair.caption == pair.origin.details["prompt"] == "a fox"
    assert pair.origin.details["style_removed"] == "an oil painting of | 8k"


def test_keys_change_with_the_prompt_and_not_with_destyling() -> None:
    plain = plan_jobs(captions("a fox", "a dog"), STYLES, recipe())
    same = plan_jobs(captions("a fox", "a dog"), STYLES, recipe(destyle=True))
    assert [job.key for job in plain] == [job.key for job in same]
    styled = plan_jobs(captions("a photo of a fox", "a dog"), STYLES, recipe())
    changed = plan_jobs(captions("a photo of a fox", "a dog"), STYLES, recipe(destyle=True))
    keys, others = {job.key for job in styled}, {job.key for job in changed}
    assert len(keys & others) == len(keys) / 2  # those of the dog


def test_a_caption_of_style_alone_is_left_out_and_counted() -> None:
    jobs = plan_jobs(
        captions("oil painting", "8k, artstation", "a dog"), STYLES, recipe(destyle=True)
    )
    assert {job.parent for job in jobs} == {"key2"}
    assert jobs.skipped == {"no-content": 2}
    with pytest.raises(RecipeError, match="no reference shares a split"):
        plan_jobs(captions("oil painting"), STYLES, recipe(destyle=True))


def test_a_prompt_of_a_file_is_recorded_as_it_was_and_comes_once(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a photo of a fox\na drawing of a fox\na fox\na dog\n")
    spec = recipe("instantstyle", prompts=path, destyle=True, candidates=1)
    jobs = plan_jobs([], STYLES[:1], spec)
    metadata = {job.prompt: job.prompt_metadata for job in jobs}
    assert len(jobs) == 2
    assert metadata["a dog"] == {}
    assert metadata["a fox"] == {
        "style_removed": "a photo of",
        "original_prompt": "a photo of a fox",
    }
    assert {job.content for job in jobs} == {content_id("a fox"), content_id("a dog")}


def crossing() -> tuple[str, str]:
    """A text of the train split, and one of the val split that de-stylises to it (val_fraction 0.5)."""
    for number in range(100):
        text = f"a fox {number}"
        styled = f"a photo of {text}"
        splits = [assign_split(content_id(t), 0, 0.5) for t in (text, styled)]
        if splits == ["train", "val"]:
            return text, styled
    raise AssertionError("no such text")


def test_a_destyled_prompt_never_stands_in_both_splits() -> None:
    text, styled = crossing()
    both = [style(f"style{i}") for i in range(12)]
    assert {assign_split(reference.id, 0, 0.5) for reference in both} == {"train", "val"}
    spec = recipe(destyle=True, val_fraction=0.5)
    jobs = plan_jobs(captions(text, styled), both, spec)
    assert {job.parent for job in jobs} == {"key0"}
    assert jobs.skipped == {"crosses-split": 1}
    alone = plan_jobs(captions(styled), both, spec)
    assert {assign_split(job.reference, 0, 0.5) for job in alone} == {"val"}
    assert alone.skipped == {}


def test_prompts_that_became_the_same_come_after_all_others() -> None:
    same = [f"a {medium} of a fox" for medium in ("photo", "drawing", "painting", "sketch")]
    spec = recipe(destyle=True, contents=4)
    for seed in range(4):
        spec.seed = seed
        jobs = plan_jobs(captions(*same, "a dog", "a cat", "an owl"), STYLES, spec)
        assert {job.prompt for job in jobs} == {"a fox", "a dog", "a cat", "an owl"}


def test_a_destyled_plan_is_the_same_whatever_the_order_of_rows() -> None:
    raw = captions(*(f"a {m} of a fox {i}" for i in range(20) for m in ("photo", "sketch")))
    many = [style(f"style{i}") for i in range(12)]
    spec = recipe(destyle=True, contents=9, val_fraction=0.3)
    assert list(plan_jobs(raw, many, spec)) == list(plan_jobs(raw[::-1], many, spec))


# --- templates ----------------------------------------------------------------------------------


def test_prompts_come_from_templates_for_backends_that_draw() -> None:
    words = {"animal": ["a cat", "a dog", "an owl"], "place": ["a hill", "the sea"]}
    spec = {"templates": ["{animal} on {place}", "a photo of {animal}"], "words": words}
    jobs = plan_jobs([], STYLES, recipe("instantstyle", **spec))
    assert len({job.prompt for job in jobs}) == 9
    assert {job.parent for job in jobs} == {None}
    few = plan_jobs([], STYLES, recipe("instantstyle", contents=4, **spec))
    assert len({job.prompt for job in few}) == 4
    assert {job.prompt for job in few} <= {job.prompt for job in jobs}
    destyled = plan_jobs([], STYLES, recipe("instantstyle", destyle=True, **spec))
    assert {"a cat", "a dog", "an owl"} < {job.prompt for job in destyled}
    with pytest.raises(RecipeError, match=r"synthesize\.templates: backend patch"):
        plan_jobs(rows(1), STYLES, recipe(**spec))


def test_templates_fill_the_number_asked_for_with_prompts_that_have_references() -> None:
    words = {"a": [f"thing {i}" for i in range(100)], "b": [f"place {i}" for i in range(100)]}
    val = [style(f"style{i}") for i in range(40)]
    val = [reference for reference in val if assign_split(reference.id, 0, 0.2) == "val"]
    spec = recipe("instantstyle", templates=["{a} {b}"], words=words, contents=50, val_fraction=0.2)
    jobs = plan_jobs([], val, spec)
    assert len({job.prompt for job in jobs}) == 50
    assert {assign_split(job.content, 0, 0.2) for job in jobs} == {"val"}


# --- quotas -------------------------------------------------------------------------------------


def test_each_style_meets_as_many_contents_as_per_style_says() -> None:
    spec = recipe(per_style=5, references_per_content=1)
    jobs = plan_jobs(rows(30), FOUR, spec)
    assert jobs.contents_per_style() == {"mosaic": 5, "neon": 5}
    assert sorted(met(jobs).values()) == [2, 2, 3, 3]
    assert len({job.parent for job in jobs}) == 10  # no content twice while there are others


def test_contents_are_visited_again_until_each_style_has_its_number() -> None:
    spec = recipe(per_style=6, references_per_content=1, candidates=1)
    jobs = plan_jobs(rows(4), FOUR, spec)
    assert jobs.contents_per_style() == {"mosaic": 6, "neon": 6}
    assert len({job.key for job in jobs}) == len(jobs) == 12
    assert Counter(job.parent for job in jobs) == {f"key{i}": 3 for i in range(4)}
    most = plan_jobs(rows(4), FOUR, recipe(per_style=100, candidates=1))
    assert met(most) == {reference.id: 4 for reference in FOUR}  # each content met each reference


def test_single_styles_have_quotas_of_their_own() -> None:
    three = [*FOUR, style("batik")]
    spec = recipe(per_style=4, styles={"neon": 9, "batik": 0}, references_per_content=1)
    assert plan_jobs(rows(30), three, spec).contents_per_style() == {
        "batik": 0,
        "mosaic": 4,
        "neon": 9,
    }
    capped = recipe(styles={"neon": 3}, references_per_content=1)
    assert plan_jobs(rows(30), FOUR, capped).contents_per_style() == {"mosaic": 27, "neon": 3}
    with pytest.raises(RecipeError, match=r"synthesize\.styles\.noen: no reference") as caught:
        plan_jobs(rows(3), FOUR, recipe(styles={"noen": 3}))
    assert caught.value.hint == "did you mean neon?"


def test_a_style_that_gets_too_few_contents_is_an_error() -> None:
    spec = recipe(per_style=9, per_style_min=9)
    with pytest.raises(
        RecipeError, match=r"at least 9 contents for each style, found columns 4, rows 4"
    ):
        plan_jobs(rows(4), STYLES, spec)
    kept = recipe(per_style=9, per_style_min=4, styles={"rows": 2})
    assert plan_jobs(rows(4), STYLES, kept).contents_per_style() == {"columns": 4, "rows": 2}


def test_quotas_hold_where_styles_belong_to_both_splits() -> None:
    many = [style(f"style{i}") for i in range(12)]
    spec = recipe(per_style=7, val_fraction=0.3, references_per_content=1)
    jobs = plan_jobs(rows(60), many, spec)
    assert set(jobs.contents_per_style().values()) == {7}
    pairs = {(assign_split(j.content, 0, 0.3), assign_split(j.reference, 0, 0.3)) for j in jobs}
    assert pairs == {("train", "train"), ("val", "val")}
    assert list(jobs) == list(plan_jobs(rows(60)[::-1], many, spec))
