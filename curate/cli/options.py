"""Options that the commands of `stylear curate` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stylear.curate.corpus.object_store import corpus_path

RecipeArgument = Annotated[
    Path,
    typer.Argument(
        help="The recipe: a YAML file, or an embedded one by name (demo, house-style, paper)."
    ),
]
StageRecipe = Annotated[
    Path | None, typer.Argument(help="The recipe; default: the one in the corpus.")
]
OutOption = Annotated[
    Path,
    typer.Option(
        "--out",
        parser=corpus_path,
        metavar="CORPUS",
        help="The corpus: a folder or a URL such as s3://bucket/corpus, new or begun.",
    ),
]
CorpusArgument = Annotated[
    Path,
    typer.Argument(parser=corpus_path, metavar="CORPUS", help="The corpus: a folder or a URL."),
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=0, help="Processes at work; 0: one for each core, or GPU.")
]
EngineOption = Annotated[
    str, typer.Option("--engine", help="Where the work runs: local (processes here) or ray.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address", help="The Ray cluster; default: RAY_ADDRESS, or a new one on this machine."
    ),
]
VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify",
        help="Hash what earlier runs committed before trusting it, or look at sizes only.",
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set", help="Change a key of the recipe, e.g. mix.val_fraction=0.2; repeatable."
    ),
]
MinSuccessOption = Annotated[
    float | None,
    typer.Option(
        "--min-success",
        min=0,
        max=1,
        help="Stop when a smaller share of downloads succeeds; default: the recipe's min_success.",
    ),
]
NetworkOption = Annotated[
    list[str],
    typer.Option(
        "--allow-network",
        metavar="CIDR",
        help="Let URLs reach this network though it is not public; repeatable.",
    ),
]
AllowEmptyOption = Annotated[
    bool,
    typer.Option("--allow-empty", help="Accept sources without pairs; they are errors otherwise."),
]
RedoOption = Annotated[
    str | None,
    typer.Option("--redo", help="Make this stage and all that follow again, from nothing."),
]
