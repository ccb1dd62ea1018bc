"""Templates: prompts filled from lists of words, and nothing else ever looked up."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from stylear.curate.recipe.base import AbsolutePaths
from stylear.curate.recipe.synthesis import SynthesizeSettings
from stylear.curate.recipe.templates import parse_template
from stylear.curate.synthesize.prompts.destyle import destyle
from stylear.curate.synthesize.prompts.templates import fill_templates, shuffle_range
from stylear.errors import RecipeError, SourceError

MANIFESTS = Path(__file__).parents[2] / "manifests"
ANIMALS, PLACES = ["a cat", "a dog", "an owl"], ["a hill", "the sea"]


def spec(*templates: str, **changes: Any) -> SynthesizeSettings:
    words = changes.pop("words", {"animal": ANIMALS, "place": PLACES})
    return SynthesizeSettings(templates=templates, words=words, **changes)


def test_every_combination_comes_once() -> None:
    prompts = list(fill_templates(spec("{animal} on {place}"), 0))
    assert sorted(prompts) == sorted(f"{a} on {p}" for a in ANIMALS for p in PLACES)


def test_the_order_follows_the_seed() -> None:
    words = {"animal": ANIMALS, "place": PLACES, "other": ["one", "two", "three", "four"]}
    templates = spec("{animal} on {place} by {other}", words=words)
    first = list(fill_templates(templates, 0))
    assert first == list(fill_templates(templates, 0))
    assert first != list(fill_templates(templates, 1))
    assert sorted(first) == sorted(fill_templates(templates, 1))
    assert len(set(first)) == 24


def test_templates_take_turns_until_they_are_used_up() -> None:
    prompts = list(fill_templates(spec("{animal}", "{animal} on {place}"), 0))
    assert [" on " in prompt for prompt in prompts] == [False, True] * 3 + [True] * 3


def test_a_placeholder_that_stands_twice_has_one_word() -> None:
    templates = spec("{animal} and {animal}", words={"animal": ANIMALS})
    assert sorted(fill_templates(templates, 0)) == [
        "a cat and a cat",
        "a dog and a dog",
        "an owl and an owl",
    ]


def test_few_of_many_combinations_cost_few_steps() -> None:
    words = {name: [f"{name}{i}" for i in range(1000)] for name in ("a", "b", "c", "d")}
    templates = spec("{a} {b} {c} {d}", words=words, contents=5)  # of 10**12
    prompts = list(islice(fill_templates(templates, 0), 2000))
    assert len(set(prompts)) == 500  # 100 draws for each prompt asked for
    assert Counter(len(prompt.split()) for prompt in prompts) == {4: 500}


@pytest.mark.parametrize("size", [1, 2, 3, 17, 64, 1000])
def test_shuffled_numbers_come_once_each(size: int) -> None:
    assert sorted(shuffle_range(size, "x")) == list(range(size))


def test_shuffled_numbers_are_spread() -> None:
    first = list(islice(shuffle_range(10**30, "x"), 1000))
    assert len(set(first)) == 1000
    assert 400 < sum(number < 5 * 10**29 for number in first) < 600
    assert first != list(islice(shuffle_range(10**30, "y"), 1000))


@pytest.mark.parametrize(
    "template",
    [
        "{0}",
        "{}",
        "{0.__class__}",
        "{animal.__class__.__mro__}",
        "{animal[0]}",
        "{animal!r}",
        "{animal:>999999999}",
        "{__class__}",
        "{Animal}",
        "{ animal }",
    ],
)
def test_a_placeholder_is_a_name_and_nothing_else(template: str) -> None:
    with pytest.raises(RecipeError, match=r"^t: expected placeholders such as \{animal\}"):
        parse_template(template, "t", ["animal"])


@pytest.mark.parametrize("template", ["{animal", "animal}", "{{animal}}", "{an{animal}}"])
def test_braces_belong_to_placeholders(template: str) -> None:
    with pytest.raises(RecipeError, match="every brace"):
        parse_template(template, "t", ["animal"])


def test_a_placeholder_without_words_is_reported_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"templates\.1: .* no list for \{anmal\}") as caught:
        spec("{animal} {place}", "{anmal}")
    assert caught.value.hint == "did you mean {animal}?"
    with pytest.raises(RecipeError, match=r"words\.place: no template has a placeholder"):
        spec("{animal}")
    with pytest.raises(RecipeError, match="expected a prompt, found an empty text"):
        spec(" ", words={})


def test_prompts_and_templates_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="found both"):
        spec("{animal} {place}", prompts=tmp_path / "prompts.txt")


@pytest.mark.parametrize("words", [3, [], [3], {"a": 1}, None])
def test_words_are_a_list_or_a_file(words: Any) -> None:
    with pytest.raises(RecipeError, match=r"synthesize\.words\.animal: expected a list of words"):
        spec("{animal}", words={"animal": words})


def test_words_come_from_a_file_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "animals.txt").write_text("# animals\na cat\n\na  dog\na cat\n")
    templates = spec("{animal}", words={"animal": "animals.txt"}).map_paths(AbsolutePaths(tmp_path))
    assert sorted(fill_templates(templates, 0)) == ["a cat", "a dog"]
    (tmp_path / "animals.txt").write_text("# nothing\n")
    with pytest.raises(SourceError, match=r"synthesize\.words\.animal: .* contains no word"):
        list(fill_templates(templates, 0))
    (tmp_path / "animals.txt").unlink()
    with pytest.raises(SourceError, match=r"synthesize\.words\.animal: cannot read"):
        list(fill_templates(templates, 0))


def test_more_prompts_than_a_corpus_takes_need_a_number() -> None:
    words = {name: [f"{name}{i}" for i in range(1001)] for name in ("a", "b")}
    with pytest.raises(RecipeError, match="at most 1,000,000 prompts, found 1,002,001") as caught:
        fill_templates(spec("{a} {b}", words=words), 0)
    assert caught.value.hint == "set their number with synthesize.contents"


def test_prompts_are_safe_to_store() -> None:
    words = {"animal": ["a\tcat\x00", "a dog\u202e"]}
    assert sorted(fill_templates(spec("{animal}", words=words), 0)) == ["a cat", "a dog"]
    with pytest.raises(RecipeError, match="at most 1000 characters"):
        list(fill_templates(spec("{animal}" * 20, words={"animal": ["x" * 60]}), 0))


def test_the_word_lists_that_are_shipped_hold_no_words_of_style() -> None:
    words = {name: f"words/{name}s.txt" for name in ("subject", "place", "moment")}
    templates = spec("{subject} {place}", "{subject} {place} {moment}", words=words).map_paths(
        AbsolutePaths(MANIFESTS)
    )
    prompts = list(fill_templates(templates, 0))
    assert len(prompts) == len(set(prompts)) == 54 * 28 * (1 + 12)
    assert [prompt for prompt in prompts[:3000] if destyle(prompt).removed] == []
