"""`stylear curate explain`: the life of one pair."""

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
    """Tell the life of a pair: its origin, its scores, what each stage decided, and where it is.

    A dropped pair has the stage, the reason, the rule with its threshold, and the value that the pair
    has. A raw pair lists what was made of it. On an unfinished corpus it says what is known so far.

    Example: stylear curate explain corpus 07839026
    """
    from stylear.curate import run as runner
    from stylear.curate.explain.find import find_pairs
    from stylear.curate.explain.life import explain as explain_pairs
    from stylear.curate.explain.text import lines_of

    runner.recipe_path(corpus)
    found = find_pairs(corpus, pair)
    lives = explain_pairs(corpus, found)
    if json:
        emit_json({"asked": pair, "matched_by": found.by, "pairs": lives})
        return
    for number, life in enumerate(lives):
        if number:
            print()
        print("\n".join(lines_of(life)))
