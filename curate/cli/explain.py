"""`stylear curate explain`: the history of one pair."""

from __future__ import annotations

from typing import Annotated

import typer

from stylear.console import JsonOption, emit_json
from stylear.curate.cli.options import CorpusArgument


def explain(
    corpus: CorpusArgument,
    pair: Annotated[
        str,
        typer.Argument(
            metavar="PAIR",
            help="A key or its beginning, a URL, a sha256, or an image file.",
        ),
    ],
    json: JsonOption = False,
) -> None:
    """Print the history of a pair: its origin, scores, the decision of each stage, and where it is stored.

    For a dropped pair it names the stage, the reason, the rule with its threshold, and the pair's value.
    For a raw pair it lists the pairs made from it. On an unfinished corpus it prints what is known so far.

    Example: stylear curate explain corpus 07839026
    """
    from stylear.curate import run as runner
    from stylear.curate.explain.find import find_pairs
    from stylear.curate.explain.history import explain as explain_pairs
    from stylear.curate.explain.text import format_history

    runner.require_recipe_path(corpus)
    matches = find_pairs(corpus, pair)
    histories = explain_pairs(corpus, matches)
    if json:
        emit_json({"asked": pair, "matched_by": matches.by, "pairs": histories})
        return
    for number, history in enumerate(histories):
        if number:
            print()
        print("\n".join(format_history(history)))
