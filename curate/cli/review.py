"""`stylear curate review`: people judge pictures on a local page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from stylear.console import JsonOption, SeedOption, emit_json, emit_tables, say, say_warning
from stylear.curate.corpus.object_store import corpus_path, in_store
from stylear.errors import UsageError


def review(
    corpus: Annotated[
        Path | None,
        typer.Argument(parser=corpus_path, metavar="CORPUS", help="A corpus: a local folder."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="Review pictures of any systems instead: one subfolder per system.",
        ),
    ] = None,
    ask: Annotated[
        str | None,
        typer.Option(
            "--ask",
            metavar="QUESTION",
            help="keep: keep or drop each pair (the default for a corpus). prefer: choose the better of two.",
        ),
    ] = None,
    reviewer: Annotated[
        str,
        typer.Option(
            "--reviewer",
            metavar="NAME",
            help="Name of the reviewer; answers are kept per reviewer.",
        ),
    ] = "anonymous",
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, metavar="N", help="Ask only N questions, drawn by the seed."
        ),
    ] = None,
    seed: SeedOption = 0,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="Port; 0 picks a free one.")
    ] = 0,
    summary: Annotated[
        bool, typer.Option("--summary", help="Print the results so far, and exit.")
    ] = False,
    figure: Annotated[
        Path | None,
        typer.Option(
            "--figure",
            metavar="FILE",
            help="With --summary: also draw the win rates with their intervals, as an SVG file.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Let people keep or drop pairs, or choose between two pictures, on a local page.

    The models' names are hidden; sides and order are shuffled. Answers are appended to
    review/answers.jsonl. The filter drops what people drop; their preferences become preference pairs and
    a table of win rates. Stop the server with Ctrl-C; the same command continues.

    Example: stylear curate review corpus --reviewer ann
    """
    root = choose_root(corpus, folder)
    if summary:
        print_summary(root, figure, json=json)
        return
    if json or figure is not None:
        raise UsageError(f"{'--json' if json else '--figure'}: expected together with --summary")
    question = ask or ("keep" if folder is None else "prefer")
    serve(root, question, reviewer, limit, seed, port, is_corpus=folder is None)


def choose_root(corpus: Path | None, folder: Path | None) -> Path:
    """The corpus or the folder to review. Raises UsageError if both or neither are given, or for a store."""
    from stylear.curate import run as runner

    if (corpus is None) == (folder is None):
        raise UsageError("review: expected either CORPUS or --from FOLDER")
    if corpus is None:
        assert folder is not None
        return folder
    if in_store(corpus):
        raise UsageError(
            f"{corpus}: expected a local corpus: answers are appended to a file, and an object"
            " store cannot append",
            hint="copy the corpus to a local folder and review it there",
        )
    runner.require_recipe_path(corpus)
    return corpus


def serve(
    root: Path,
    question: str,
    reviewer: str,
    limit: int | None,
    seed: int,
    port: int,
    *,
    is_corpus: bool,
) -> None:
    """Serve the page until it is interrupted."""
    from stylear.curate.review.corpus_tasks import CorpusMaterial
    from stylear.curate.review.folder_tasks import FolderMaterial
    from stylear.curate.review.server import serve_review
    from stylear.curate.review.session import Session, require_tasks
    from stylear.curate.review.tasks import Ask, Material, order_tasks

    questions: dict[str, Ask] = {"keep": "keep", "prefer": "prefer"}
    if question not in questions:
        raise UsageError(f"--ask: expected keep or prefer, found {question!r}")
    material: Material = CorpusMaterial(root) if is_corpus else FolderMaterial(root)
    tasks = material.tasks(questions[question])
    require_tasks(tasks, root, question)
    session = Session(root, order_tasks(tasks, seed, reviewer, limit), reviewer)
    try:
        with serve_review(session, material, port) as url:
            print(f"review: {url}", flush=True)
            say(f"{session.done} of {len(session.tasks)} answered by {reviewer}; Ctrl-C ends")
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        say(f"{session.done} of {len(session.tasks)} answered by {reviewer}")


def print_summary(root: Path, figure: Path | None, *, json: bool) -> None:
    """Print the tables of a review, and draw its win rates into a file if one is given.

    Raises UsageError for a figure of no comparisons.
    """
    from stylear.curate.corpus.answers import read_answers
    from stylear.curate.review.summary import summarize, to_json

    result = summarize(read_answers(root))
    if json:
        emit_json(to_json(result))
    else:
        pairs = [result["pairs"]] if result["pairs"]["judged"] else []
        emit_tables([result["reviewers"], pairs, result["models"], result["duels"]])
    if not result["reviewers"]:
        say(f"{root}: nobody has answered yet")
    if not result["comparable"]:
        say_warning(
            "no chain of comparisons connects all models, so their strengths cannot be compared"
        )
    if figure is not None:
        from stylear.curate.corpus.storage import write_text
        from stylear.curate.review.figure import draw_win_rates

        if not result["models"]:
            raise UsageError(f"--figure: expected comparisons of {root}, found none")
        write_text(figure, draw_win_rates(result["models"], f"Preferred by people: {root.name}"))
        say(f"figure: {figure}")
