"""Writing the explorer: `pairs.html` and the chunks of data beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.corpus.storage import list_files, remove_path, write_text
from stylear.curate.filter.ranking import choose_ranking_scores
from stylear.curate.report.cutoffs import find_cutoffs
from stylear.curate.report.explorer.chunks import (
    DATA,
    chunk_path,
    write_array_chunk,
    write_json_chunk,
)
from stylear.curate.report.explorer.histories import HISTORIES, write_histories
from stylear.curate.report.explorer.page import PAGE, render_explorer
from stylear.curate.report.explorer.pictures import (
    PICTURES,
    write_pair_pictures,
    write_reference_pictures,
)
from stylear.curate.report.explorer.rows import (
    COLUMNS,
    MAX_PAIRS,
    ExplorerRows,
    read_rows,
    read_scores,
)

if TYPE_CHECKING:
    from stylear.curate.report.facts import Facts

TEXTS = 2048  # rows of a chunk of texts (our choice): some 100 kB


def write_explorer(facts: Facts, folder: Path, limit: int = MAX_PAIRS) -> None:
    """Write the page and its data into a report's folder, and remove the data of an earlier one.

    At most `limit` pairs are shown. Raises CorpusError for damaged tables and images.
    """
    remove_path(folder / PAGE)  # it must not read chunks of two corpora
    existing = {path.stem for path in list_files(folder / DATA)}
    rows = read_rows(facts, limit)
    chunks, pictures = write_pair_pictures(facts, rows, folder, existing)
    references = list(facts.references.values())
    shown, of_reference = write_reference_pictures(references, folder, existing, len(chunks))
    chunks += shown
    columns = {**rows.columns, "picture": pictures}
    write_array_chunk(folder, "rows", [columns[name] for name in (*COLUMNS, "picture")])
    scores = read_scores(facts, rows)
    write_array_chunk(folder, "scores", list(scores.values()))
    names = ["corpus", "rows", "scores", *write_texts(rows, folder)]
    names += write_histories(facts.corpus, rows, folder)
    corpus = describe_corpus(facts, rows) | {"pictures": chunks}
    corpus["references"] = [
        {
            "id": name,
            "picture": of_reference.get(name, -1),
            "split": ("val" if facts.references[name].held_out else "train")
            if name in facts.references
            else None,
        }
        for name in rows.words["reference"]
    ]
    write_json_chunk(folder, "corpus", corpus)
    for name in existing.difference(names, chunks):
        remove_path(chunk_path(folder, name))
    write_text(folder / PAGE, render_explorer(f"Pairs of corpus {facts.recipe.name}"))


def describe_corpus(facts: Facts, rows: ExplorerRows) -> dict[str, Any]:
    """The data that the page needs before it can show a pair."""
    text, style = choose_ranking_scores(facts.recipe)
    cutoffs = find_cutoffs(facts.corpus, facts.recipe)
    return {
        "name": facts.recipe.name,
        "pairs": len(facts.pairs),
        "shown": len(rows),
        "columns": [*COLUMNS, "picture"],
        "styles": rows.words["style"],
        "outcomes": [
            {"stage": stage, "reason": reason, "pairs": facts.outcomes.count()[stage, reason]}
            for stage, reason in facts.outcomes.names
        ],
        "licences": rows.words["licence"],
        "sources": rows.words["source"],
        "scores": [
            {"name": name, "limits": [list(limit) for limit in cutoffs.get(name, ())]}
            for name in facts.scores
        ],
        "text_score": text,
        "style_score": style,
        "rows_of": {"texts": TEXTS, "histories": HISTORIES, "pictures": PICTURES},
    }


def write_texts(rows: ExplorerRows, folder: Path) -> list[str]:
    """Write keys, captions and sources; returns the names of the chunks."""
    names = []
    for number, start in enumerate(range(0, len(rows), TEXTS)):
        part = slice(start, start + TEXTS)
        names.append(f"texts-{number}")
        value = {
            "key": rows.keys[part],
            "caption": rows.captions[part],
            "source": rows.sources[part],
        }
        write_json_chunk(folder, names[-1], value)
    return names
