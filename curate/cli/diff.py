"""`stylear curate diff`: what differs between two corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stylear.console import JsonOption, emit_json, emit_tables, say
from stylear.curate.corpus.object_store import corpus_path

First = Annotated[
    Path, typer.Argument(parser=corpus_path, metavar="A", help="A corpus: a folder or a URL.")
]
Second = Annotated[
    Path, typer.Argument(parser=corpus_path, metavar="B", help="The corpus to compare with it.")
]


def diff(
    a: First,
    b: Second,
    list_: Annotated[
        bool, typer.Option("--list", help="List every pair with a different outcome.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Compare corpus B with corpus A: recipe, counts, added and dropped pairs with reasons, scores, styles.

    Pairs are matched by key. The outcome of a pair is train, val, the stage and reason that dropped it,
    or absent. Scores are compared over the pairs that both corpora scored.

    Example: stylear curate diff corpus-1 corpus-2
    """
    from stylear.curate import diff as differ
    from stylear.curate import run as runner

    for corpus in (a, b):
        runner.require_recipe_path(corpus)
    comparison = differ.diff_corpora(a, b)
    if json:
        listed = {"changed_pairs": list(comparison.changed_pairs())} if list_ else {}
        emit_json(comparison.summary() | listed)
        return
    for name in comparison.unfinished:
        say(f"warning: {name} is not finished; only its pairs so far are compared")
    if comparison.is_empty:
        print(f"no difference in {comparison.common} pairs")
        return
    emit_tables(comparison.tables())
    if list_:
        print()
        for row in comparison.changed_pairs():
            print(f"{row['key']}  {row['kind']}  {row['a']} -> {row['b']}")
