"""The audit of provenance: a pair that says anything else of itself than what was done is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.damaged_corpus import edit_entry, edit_table

from stylear.curate.audit.provenance import check_lineage, check_opt_outs
from stylear.curate.corpus.layout import RECIPE
from stylear.curate.recipe import load_recipe
from stylear.errors import CorpusError

Rows = list[dict[str, Any]]


def edit_details(rows: Rows, number: int, **changes: Any) -> None:
    details = json.loads(rows[number]["details"]) | changes
    rows[number]["details"] = json.dumps({k: v for k, v in details.items() if v is not None})


def lineage(corpus: Path) -> list[tuple[str, str]]:
    """(file, field) of every difference; the key of the pair is the same in each."""
    differences = list(check_lineage(corpus, load_recipe(corpus / RECIPE)))
    assert (
        len({difference.key.partition(" ")[0] for difference in differences if difference.key}) <= 1
    )
    return [
        (difference.file, (difference.key or "").partition(" ")[2]) for difference in differences
    ]


CHANGES: list[tuple[str, Callable[[Rows], None], list[str]]] = [
    ("prompt", lambda rows: rows[0].update(caption="another"), ["prompt", "group", "key", "seed"]),
    ("parent", lambda rows: rows[0].update(parent="0" * 32), ["group", "key", "seed"]),
    ("seed", lambda rows: edit_details(rows, 0, seed=1), ["seed"]),
    ("no seed", lambda rows: edit_details(rows, 0, seed=None), ["seed"]),
    ("group", lambda rows: edit_details(rows, 0, group="0" * 32), ["group"]),
    ("no candidate", lambda rows: edit_details(rows, 0, candidate=None), ["candidate"]),
    ("backend", lambda rows: rows[0].update(source="synthesizer:patch"), ["source"]),
    (
        "reference",
        lambda rows: rows[0].update(reference_sha256="0" * 64),
        ["reference", "group", "key", "seed"],
    ),
]


@pytest.mark.parametrize(("name", "change", "fields"), CHANGES, ids=[name for name, *_ in CHANGES])
def test_a_stylized_pair_with_another_history_is_found(
    corpus: Path, name: str, change: Callable[[Rows], None], fields: list[str]
) -> None:
    assert lineage(corpus) == []
    edit_table(corpus / "stylized" / "00000.parquet", change)
    assert sorted(lineage(corpus)) == [
        ("stylized/00000.parquet", field) for field in sorted(fields)
    ]


def test_images_drawn_with_two_weights_are_found(corpus: Path) -> None:
    def one_differs(rows: Rows) -> None:
        for number in range(len(rows)):
            edit_details(rows, number, model_sha256="b" if number == 3 else "a")

    edit_table(corpus / "stylized" / "00001.parquet", one_differs)
    assert lineage(corpus) == [("stylized/00001.parquet", "model_sha256")]


def test_other_synthesis_settings_than_the_images_were_drawn_with_are_found(corpus: Path) -> None:
    recipe = load_recipe(corpus / RECIPE)
    settings = {**recipe.synthesize.settings, "rounds": 9}
    changed = recipe.synthesize.model_copy(update={"settings": settings})
    differences = list(check_lineage(corpus, recipe.model_copy(update={"synthesize": changed})))
    assert {(difference.key or "").partition(" ")[2] for difference in differences} == {
        "group",
        "key",
        "seed",
    }
    assert len(differences) == 3 * 24


def test_a_reference_that_no_plan_knew_is_found(corpus: Path) -> None:
    edit_entry(
        corpus,
        "synthesize.plan",
        "00000",
        lambda entry: entry["note"]["references"].pop("plain", 0),
    )
    differences = list(check_lineage(corpus, load_recipe(corpus / RECIPE)))
    assert {difference.expected for difference in differences} <= {"a reference of the plan"}


def test_details_that_are_no_json_are_named(corpus: Path) -> None:
    edit_table(corpus / "stylized" / "00002.parquet", lambda rows: rows[1].update(details="[1]"))
    with pytest.raises(
        CorpusError, match=r"stylized/00002.parquet: expected the details of \w+ as"
    ):
        lineage(corpus)


def keep_with_headers(headers: str) -> Callable[[Rows], None]:
    return lambda rows: edit_details(rows, 1, opt_out_headers=headers)


@pytest.mark.parametrize(
    ("headers", "forbids"),
    [
        ("x-robots-tag: noai", True),
        ("x-robots-tag: googlebot: noindex; tdm-reservation: 1", True),
        ("x-robots-tag: googlebot: noindex", False),
        (
            "x-robots-tag: unavailable_after: 25 Jun 2010 15:00:00 GMT",
            False,
        ),  # past by now, not then
        ("tdm-reservation: 0", False),
    ],
)
def test_a_kept_pair_whose_server_forbade_its_use_is_found(
    corpus: Path, headers: str, forbids: bool
) -> None:
    edit_table(corpus / "raw" / "00000.parquet", keep_with_headers(headers))
    opt_outs = [(difference.file, difference.found) for difference in check_opt_outs(corpus)]
    assert opt_outs == ([("raw/00000.parquet", headers)] if forbids else [])


def test_the_image_of_a_pair_that_opted_out_is_found(corpus: Path) -> None:
    def drop(rows: Rows) -> None:
        rows[2].update(kept=False, stage="fetch", reason="opted-out")

    edit_table(corpus / "raw" / "00000.parquet", drop)
    [difference] = check_opt_outs(corpus)
    assert (difference.expected, difference.found) == (
        "no image of a pair dropped as opted-out",
        "one",
    )
