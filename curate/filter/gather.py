"""Gather the rows of a corpus from the tables and scores of its shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stylear.curate.corpus.answers import count_votes, read_answers
from stylear.curate.corpus.candidates import Candidates, parse_style, read_pairs
from stylear.curate.corpus.columns import (
    DictionaryColumn,
    combine_chunks,
    concatenate,
    dictionary_codes,
    first_occurrence,
    hash_identities,
    valid_mask,
)
from stylear.curate.corpus.layout import KINDS, score_path
from stylear.curate.corpus.parquet import read_table, read_tables
from stylear.curate.filter.groups import group_exact_duplicates, group_near_duplicates
from stylear.curate.filter.human import read_votes
from stylear.curate.filter.ranking import choose_ranking_scores, rank_order, rank_pairs
from stylear.curate.filter.rows import Numbers, Rows
from stylear.curate.score import COLOUR
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import Recipe

PHASH = "phash"


def gather_rows(corpus: Path, recipe: Recipe) -> tuple[Candidates, Rows]:
    """All pairs with their ranks, and their rows, raw before stylized, in shard order.

    Raises CorpusError if tables and scores do not have the same keys.
    """
    import pyarrow as pa

    pairs = read_pairs(corpus)
    names = score_names(recipe)
    columns = concatenate(read_scores(corpus, names))
    scores = {name: columns.get(name, pa.array([], pa.float32())) for name in names}
    pairs.rank = rank_pairs(scores, pairs.stylized, *choose_ranking_scores(recipe))
    hashes = concatenate(read_hashes(corpus, find_phash_name(recipe)))
    rows = build_rows(pairs, scores, hashes, recipe.filter.duplicates.phash_distance)
    read_votes(rows, pairs.key, count_votes(read_answers(corpus)))
    return pairs, rows


def build_rows(
    pairs: Candidates,
    scores: Mapping[str, pa.FloatArray],
    hashes: Mapping[str, Any],
    distance: int | None,
) -> Rows:
    """The rows of pairs whose ranks are known; hashes: phash (N,), colour (N, 12), hashed (N,)."""
    reference = pairs.reference.dictionary_encode()
    names = reference.dictionary.to_pylist()
    styles = {style: n for n, style in enumerate(sorted({parse_style(name) for name in names}))}
    codes = dictionary_codes(reference)
    style_of_code = np.array([*(styles[parse_style(name)] for name in names), -1], np.int32)
    rows = Rows(
        pairs.kept.copy(),
        pairs.stylized,
        DictionaryColumn(pairs.reason.array()),
        {
            "reference": codes,
            "style": style_of_code[codes],
            "content": first_occurrence(hash_identities(pairs.content)).astype(np.int32),
            "source": first_occurrence(pairs.source).astype(np.int32),
            "group": number_texts(pairs.group),
            "order": rank_order(pairs.rank, pairs.key),
        },
        dict(scores),
        list(styles),
        **hashes,
    )
    rows.numbers["exact"] = group_exact_duplicates(
        assign_duplicate_pools(rows), pairs.image, rows.kept
    )
    rows.numbers["near"] = find_near_groups(rows, distance)
    return rows


def find_near_groups(rows: Rows, distance: int | None) -> Numbers:
    """The groups of near duplicates; no groups without a distance."""
    if distance is None or rows.hashed is None or not len(rows):
        return np.full(len(rows), -1, np.int32)
    assert rows.phash is not None
    assert rows.colour is not None
    eligible = rows.kept & rows.hashed
    return group_near_duplicates(
        assign_duplicate_pools(rows), rows["order"], rows.phash, rows.colour, eligible, distance
    )


def assign_duplicate_pools(rows: Rows) -> Numbers:
    """Number the pools in which duplicates are searched: raw, or one style reference."""
    return rows["reference"] * 2 + rows.stylized


def number_texts(column: pa.StringArray) -> Numbers:
    """Number the distinct texts; -1 for null."""
    numbers = first_occurrence(hash_identities(column)).astype(np.int32)
    numbers[~valid_mask(column)] = -1
    return numbers


def score_names(recipe: Recipe) -> list[str]:
    """The names of the scorers that give numbers."""
    return [score.name for score in recipe.score if score.type != "phash"]


def find_phash_name(recipe: Recipe) -> str:
    """The name of the scorer that gives the perceptual hashes."""
    return next((spec.name for spec in recipe.score if spec.type == "phash"), PHASH)


def read_scores(corpus: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """The score columns of each shard, in the order of the pairs."""
    for kind in KINDS:
        for path, table in read_tables(corpus / kind, ["key"]):
            yield {
                name: combine_chunks(
                    read_score_table(score_path(corpus, name, kind, int(path.stem)), table, name)[
                        name
                    ]
                )
                for name in names
            }


def read_hashes(corpus: Path, name: str) -> Iterator[dict[str, Any]]:
    """The perceptual hashes and colours of each shard, as numbers."""
    for kind in KINDS:
        for path, table in read_tables(corpus / kind, ["key"]):
            scored = read_score_table(
                score_path(corpus, name, kind, int(path.stem)), table, name, COLOUR
            )
            hashes, colours = scored[name].to_pylist(), scored[COLOUR].to_pylist()
            yield {
                "phash": np.array([int(text or "0", 16) for text in hashes], np.uint64),
                "colour": np.array(
                    [list(bytes.fromhex(text or "00" * 12)) for text in colours], np.uint8
                ).reshape(-1, 12),
                "hashed": np.array(
                    [a is not None and b is not None for a, b in zip(hashes, colours, strict=True)],
                    bool,
                ),
            }


def read_score_table(path: Path, pairs: pa.Table, *columns: str) -> pa.Table:
    """Score columns in the order of `pairs`. Raises CorpusError if they belong to other pairs."""
    if not path.is_file():
        raise CorpusError(
            f"{path}: expected scores, found none",
            hint="run `stylear curate score` on this corpus first",
        )
    table = read_table(path, ["key", *columns])
    if not table["key"].equals(pairs["key"]):
        raise CorpusError(
            f"{path}: its pairs differ from those of its shard",
            hint="score again with `stylear curate run RECIPE --out CORPUS --redo score`",
        )
    return table
