"""Options that the commands of `stylear curate` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stylear.curate.corpus.object_store import corpus_path

RecipeArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe: a YAML file, or the name of an embedded one (demo, house-style, paper).",
    ),
]
StageRecipe = Annotated[
    Path | None,
    typer.Argument(metavar="RECIPE", help="A recipe; by default the one in the corpus."),
]
OutOption = Annotated[
    Path,
    typer.Option(
        "--out",
        parser=corpus_path,
        metavar="CORPUS",
        help="The corpus to build or continue: a folder, or a URL such as s3://bucket/corpus.",
    ),
]
CorpusArgument = Annotated[
    Path,
    typer.Argument(parser=corpus_path, metavar="CORPUS", help="A corpus: a folder or a URL."),
]
WorkersOption = Annotated[
    int,
    typer.Option(
        "--workers",
        min=0,
        metavar="N",
        help="Number of worker processes; 0 means one per core, or one per GPU.",
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="Where to run the work: local (processes on this machine) or ray.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        help="Address of the Ray cluster; by default RAY_ADDRESS, or a new cluster on this machine.",
    ),
]
VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify",
        help="Hash the files of earlier runs before trusting them, or only compare their sizes.",
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the recipe, e.g. mix.val_fraction=0.2; can be repeated.",
    ),
]
MinSuccessOption = Annotated[
    float | None,
    typer.Option(
        "--min-success",
        min=0,
        max=1,
        metavar="SHARE",
        help="Stop if a smaller share of the downloads succeeds; by default the recipe's min_success.",
    ),
]
NetworkOption = Annotated[
    list[str],
    typer.Option(
        "--allow-network",
        metavar="CIDR",
        help="Allow URLs to reach this private network; can be repeated.",
    ),
]
AllowEmptyOption = Annotated[
    bool,
    typer.Option("--allow-empty", help="Accept sources without any pairs instead of failing."),
]
RedoOption = Annotated[
    str | None,
    typer.Option(
        "--redo", metavar="STAGE", help="Rebuild this stage and all later ones from scratch."
    ),
]
