"""columns.parquet: the rows of a corpus in one file, so that other rules can be tried without its shards.

It records its inputs: a digest of the seals of all ledger entries of the shards and their scores. If they
changed, it is not read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stylear.curate.corpus.answers import count_votes, read_answers
from stylear.curate.corpus.candidates import Candidates
from stylear.curate.corpus.columns import (
    DictionaryColumn,
    bool_mask,
    combine_chunks,
    dictionary_codes,
    valid_mask,
)
from stylear.curate.corpus.layout import COLUMNS, KINDS, LEDGER
from stylear.curate.corpus.object_store import in_store
from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.filter.diversity import find_nearest_score
from stylear.curate.filter.gather import find_near_groups, find_phash_name, score_names
from stylear.curate.filter.human import read_votes
from stylear.curate.filter.ranking import choose_ranking_scores, rank_order, rank_pairs
from stylear.curate.filter.rows import NUMBERS, Rows

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import FilterSettings, Recipe

METADATA = b"stylear.columns"
VERSION = 3  # raise if the same shards and scores give other columns
READERS = 16  # parallel reads from an object store
SEAL_BYTES = 80  # at the end of a ledger entry


def write_columns(corpus: Path, recipe: Recipe, pairs: Candidates, rows: Rows) -> None:
    """Write the rows, with no rule applied yet, with their keys and ranks."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        "key": pairs.key,
        "kind": make_dictionary_column(rows.stylized.astype(np.int32), KINDS),
        "eligible": pa.array(rows.kept),  # not dropped before the filter
        "earlier_reason": make_dictionary_column(rows.reason.codes, rows.reason.words),
    }
    references = pairs.reference.dictionary_encode().dictionary
    texts = {"reference": references.to_pylist(), "style": rows.styles}
    for name in NUMBERS:
        numbers = rows[name]
        columns[name] = (
            make_dictionary_column(numbers, texts[name])
            if name in texts
            else pa.array(numbers, mask=numbers < 0)
        )
    columns["rank"] = pa.array(pairs.rank.astype(np.float32), mask=np.isnan(pairs.rank))
    if rows.hashed is not None:
        assert rows.colour is not None
        unhashed = ~rows.hashed
        colours = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(12), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows.colour))]
        )
        columns |= {"phash": pa.array(rows.phash, mask=unhashed), "colour": colours}
    columns |= {f"score.{name}": column for name, column in rows.scores.items()}
    metadata = json.dumps(
        compute_column_inputs(corpus, recipe) | select_grouping_settings(recipe), sort_keys=True
    )
    write_table(corpus / COLUMNS, pa.table(columns, metadata={METADATA: metadata.encode()}))


def read_columns(corpus: Path, recipe: Recipe, *, diversity: bool = False) -> Rows | None:
    """The rows with the columns that the recipe's rules compare, and with `diversity` those it needs.

    If the distance or ranking differs from the file's, the groups are computed again. None if there is no
    file, or if it belongs to other shards or scores.
    """
    path = corpus / COLUMNS
    if not path.is_file():
        return None
    metadata = read_metadata(path)
    inputs, settings = compute_column_inputs(corpus, recipe), select_grouping_settings(recipe)
    unchanged = all(metadata.get(name) == value for name, value in inputs.items())
    if not inputs["inputs_sha256"] or not unchanged:
        return None
    changed = [name for name, value in settings.items() if metadata.get(name) != value]
    if changed == ["phash_distance"] and settings["phash_distance"] is None:
        changed = []
    names = list_needed_columns(recipe.filter)
    if changed or diversity:
        names |= {"phash", "colour"}
    if diversity and (nearest := find_nearest_score(recipe)) is not None:
        names.add(f"score.{nearest}")
    if changed:
        names |= {"reference", "order", "key"}
        names |= {
            f"score.{settings[name]}" for name in ("text", "style") if settings[name] is not None
        }
    votes = {} if recipe.filter.human is None else count_votes(read_answers(corpus))
    if votes:
        names.add("key")
    rows, table = rows_from_table(read_table(path, sorted(names)), names)
    if votes:
        read_votes(rows, combine_chunks(table["key"]), votes)
    if changed:
        text, style = settings["text"], settings["style"]
        ranks = rank_pairs(rows.scores, rows.stylized, text, style)
        rows.numbers["order"] = rank_order(ranks, combine_chunks(table["key"]))
        rows.numbers["near"] = find_near_groups(rows, recipe.filter.duplicates.phash_distance)
    return rows


def list_needed_columns(rules: FilterSettings) -> set[str]:
    """The columns that the rules compare, and those that count what is kept."""
    names = {"kind", "eligible", "earlier_reason", "content", "style"}
    near = rules.duplicates.phash_distance is not None
    if rules.duplicates.exact or near:
        names |= {"order", "source", "exact", "near"}
    if rules.best_of is not None:
        names |= {"order", "group"}
    if rules.per_content is not None or rules.per_style is not None:
        names.add("order")
    return names | {f"score.{limit.score}" for limit in (*rules.thresholds, *rules.votes)}


def rows_from_table(table: pa.Table, names: Iterable[str]) -> tuple[Rows, pa.Table]:
    """Convert a table that was read to rows."""
    columns = {name: combine_chunks(table[name]) for name in names}
    kinds = columns["kind"].dictionary.to_pylist()
    rows = Rows(
        bool_mask(columns["eligible"]),
        np.array([kind == "stylized" for kind in kinds], bool)[dictionary_codes(columns["kind"])],
        DictionaryColumn(columns["earlier_reason"]),
        {name: dictionary_codes(columns[name]) for name in NUMBERS if name in columns},
        {
            name.removeprefix("score."): column
            for name, column in columns.items()
            if name.startswith("score.")
        },
        columns["style"].dictionary.to_pylist(),
    )
    if "phash" in columns:
        rows.hashed = valid_mask(columns["phash"])
        rows.phash = np.frombuffer(columns["phash"].buffers()[1], np.uint64)
        rows.colour = np.frombuffer(columns["colour"].buffers()[1], np.uint8).reshape(-1, 12)
    return rows, table


def make_dictionary_column(numbers: Any, words: Iterable[str]) -> pa.DictionaryArray:
    """A column of texts from their numbers; null for a negative one."""
    import pyarrow as pa

    codes = pa.array(numbers, mask=numbers < 0)
    return pa.DictionaryArray.from_arrays(codes, pa.array(list(words), pa.string()))


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a columns file."""
    schema_metadata = read_table(path, []).schema.metadata or {}
    metadata: dict[str, Any] = json.loads(schema_metadata.get(METADATA, b"{}"))
    return metadata


def select_grouping_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that order and group the rows."""
    text, style = choose_ranking_scores(recipe)
    return {
        "phash_distance": recipe.filter.duplicates.phash_distance,
        "text": text,
        "style": style,
    }


def compute_column_inputs(corpus: Path, recipe: Recipe) -> dict[str, Any]:
    """What decides the other columns; `inputs_sha256` is empty for a corpus without a ledger."""
    phash = find_phash_name(recipe)
    stages = ["fetch", "synthesize", *(f"score.{n}" for n in [*score_names(recipe), phash])]
    digest, count = hashlib.sha256(), 0
    for stage in stages:
        for name, seal in read_seals(corpus / LEDGER / stage):
            digest.update(f"{stage} {name} ".encode() + seal)
            count += 1
    return {
        "version": VERSION,
        "inputs_sha256": digest.hexdigest() if count else "",
        "scores": score_names(recipe),
        "phash": phash,
    }


def read_seals(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The end of each ledger entry of a stage, which holds the hash of the entry, by file name."""
    if in_store(folder):
        paths = sorted(folder.glob("*.json"))
        with ThreadPoolExecutor(READERS) as pool:
            ends = pool.map(lambda path: path.read_bytes()[-SEAL_BYTES:], paths)
            yield from zip((path.name for path in paths), ends, strict=True)
        return
    for path in sorted(folder.glob("*.json")):
        with path.open("rb", buffering=0) as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - SEAL_BYTES))
            yield path.name, stream.read()
