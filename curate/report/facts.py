"""The data from which a report is rendered, read once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stylear.curate.corpus.candidates import Candidates, parse_style, read_pairs
from stylear.curate.corpus.columns import Indices, Mask, combine_chunks, to_bytes
from stylear.curate.corpus.layout import MANIFEST, RECIPE, VERDICTS
from stylear.curate.corpus.parquet import read_table, read_tables
from stylear.curate.mix.verdicts import apply_verdicts
from stylear.curate.recipe import Recipe, load_recipe
from stylear.curate.report.outcomes import SPLITS, Outcomes, read_outcomes
from stylear.errors import StylearError

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.references import StyleReference


@dataclass(frozen=True, slots=True)
class Facts:
    """The recipe, the manifest, the pairs with their verdicts and scores, and the references."""

    corpus: Path
    recipe: Recipe
    manifest: Mapping[str, Any]  # empty where there is none
    pairs: Candidates  # with the verdicts of the filter
    scores: Mapping[str, pa.FloatArray]  # in the order of the pairs
    outcomes: Outcomes  # in the order of the pairs
    references: Mapping[
        str, StyleReference
    ]  # by id: those that have not changed since they were used
    lost_references: tuple[str, ...]  # used, but missing or changed since

    @property
    def mixed(self) -> Mask:
        """Which pairs are in train or val."""
        return self.outcomes.codes < len(SPLITS)


def read_facts(corpus: Path) -> Facts:
    """Read a finished corpus. Raises CorpusError for tables that are missing or damaged."""
    manifest = corpus / MANIFEST
    recipe = load_recipe(corpus / RECIPE)
    pairs = apply_verdicts(corpus, read_pairs(corpus))
    verdicts = read_table(corpus / VERDICTS)
    used = used_references(corpus)
    references = {
        reference.id: reference
        for reference in find_references(recipe)
        if used.get(reference.id, reference.sha256) == reference.sha256
    }
    return Facts(
        corpus,
        recipe,
        json.loads(manifest.read_text("utf-8")) if manifest.is_file() else {},
        pairs,
        {
            name.removeprefix("score."): combine_chunks(verdicts[name])
            for name in verdicts.column_names
            if name.startswith("score.")
        },
        read_outcomes(corpus, pairs),
        references,
        tuple(sorted(set(used) - set(references))),
    )


def find_references(recipe: Recipe) -> list[StyleReference]:
    """The references that can still be read, by id; a finished corpus does not need them."""
    from stylear.curate.references import load_references

    references: list[StyleReference] = []
    for source in recipe.references:
        with suppress(StylearError):
            references += load_references(recipe.model_copy(update={"references": (source,)}))
    return sorted(references, key=lambda reference: reference.id)


def used_references(corpus: Path) -> dict[str, str | None]:
    """The references of the stylized pairs and their recorded hashes."""
    used: dict[str, str | None] = {}
    for _, table in read_tables(corpus / "stylized", ["reference", "reference_sha256"]):
        names, hashes = (table[name].to_pylist() for name in table.column_names)
        used.update(zip(map(str, names), hashes, strict=True))
    return used


def group_by_style(pairs: Candidates) -> Iterator[tuple[str, Indices]]:
    """Each style by name with its stylized pairs, by key."""
    indices = np.flatnonzero(pairs.stylized)
    encoded = pairs.reference.take(indices).fill_null("None").dictionary_encode()
    names = [parse_style(name) for name in encoded.dictionary.to_pylist()]
    styles = sorted(set(names))
    number = np.array([styles.index(name) for name in names], np.int64)[encoded.indices.to_numpy()]
    order = np.lexsort((to_bytes(pairs.key.take(indices)), number))
    starts = np.searchsorted(number[order], np.arange(len(styles) + 1))
    for style, start, end in zip(styles, starts, starts[1:], strict=False):
        yield style, indices[order[start:end]]
