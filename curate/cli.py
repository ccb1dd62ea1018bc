"""`stylear curate`: build a corpus, one stage at a time or all of them, and prove it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylear.console import DryRunOption, JsonOption, emit_json, emit_table, emit_tables
from stylear.curate.corpus.object_store import corpus_path
from stylear.errors import UsageError

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Build a style corpus from a recipe, stage by stage, and prove what it is.",
)

RecipeArgument = Annotated[Path, typer.Argument(help="The recipe, a YAML file.")]
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
RedoOption = Annotated[
    str | None,
    typer.Option("--redo", help="Make this stage and all that follow again, from nothing."),
]


@app.command()
def run(
    recipe: RecipeArgument,
    out: OutOption,
    workers: WorkersOption = 0,
    set_: SetOption = [],  # noqa: B006
    redo: RedoOption = None,
    min_success: MinSuccessOption = None,
    allow_network: NetworkOption = [],  # noqa: B006
    dry_run: DryRunOption = False,
    engine: EngineOption = "local",
    ray_address: AddressOption = None,
    verify: VerifyOption = True,
    json: JsonOption = False,
) -> None:
    """Build a whole corpus: every stage, then the audit and the report.

    Stopped at any point, the same command continues. Output of other settings is never mixed in:
    cheap stages are redone, for the others the command stops and says what differs.

    Example: stylear curate run manifests/demo.yaml --out corpus
    """
    from stylear.curate import run as runner
    from stylear.curate.engine import Engine

    loaded = _load(recipe, set_, min_success, allow_network)
    if dry_run:
        rows = runner.preview(loaded, out, redo)
        emit_json(rows) if json else emit_table(rows)
        return
    done = runner.run(
        loaded, out, workers=workers, redo=redo, engine=Engine(engine, ray_address), verify=verify
    )
    if json:
        emit_json(done.summary())
    else:
        emit_table(done.rows())
        print(f"report: {done.report}")


@app.command()
def fetch(
    out: OutOption,
    recipe: StageRecipe = None,
    workers: WorkersOption = 0,
    set_: SetOption = [],  # noqa: B006
    redo: Annotated[bool, typer.Option("--redo", help="Fetch again, from nothing.")] = False,
    min_success: MinSuccessOption = None,
    allow_network: NetworkOption = [],  # noqa: B006
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Fetch raw pairs from the recipe's sources into raw/.

    Example: stylear curate fetch manifests/demo.yaml --out corpus
    """
    if dry_run:
        from stylear.curate.fetch.preview import preview_sources
        from stylear.curate.run import recipe_path

        rows = preview_sources(_load(recipe if recipe is not None else recipe_path(out), set_))
        emit_json(rows) if json else emit_table(rows)
        return
    _stage(
        "fetch",
        recipe,
        out,
        workers,
        set_,
        redo,
        json,
        min_success=min_success,
        allow_networks=allow_network,
    )


@app.command()
def retry(
    corpus: CorpusArgument,
    status: Annotated[
        str,
        typer.Option(
            "--status", help="Reasons to try again, comma-separated: 404, 5xx, timeout, ..."
        ),
    ] = "429,5xx,timeout,retry-later",
    workers: WorkersOption = 0,
    json: JsonOption = False,
) -> None:
    """Ask again for downloads that failed, then redo what was made of them.

    Only the failed rows are downloaded; what comes takes the place of the failure in its shard.

    Example: stylear curate retry corpus --status 429,5xx,timeout
    """
    from dataclasses import asdict

    from stylear.curate import run as runner

    statuses = [part.strip() for part in status.split(",") if part.strip()]
    loaded = _load(runner.recipe_path(corpus), [])
    refilled, results = runner.retry(loaded, corpus, statuses, workers=workers)
    if json:
        stages = [asdict(result) for result in results]
        emit_json({"downloads": refilled.rows(), "shards": refilled.units, "stages": stages})
    else:
        emit_table(refilled.rows())
        emit_table([result.row() for result in results])


@app.command()
def synthesize(
    out: OutOption,
    recipe: StageRecipe = None,
    workers: WorkersOption = 0,
    set_: SetOption = [],  # noqa: B006
    redo: Annotated[bool, typer.Option("--redo", help="Synthesize again, from nothing.")] = False,
    dry_run: DryRunOption = False,
    engine: EngineOption = "local",
    ray_address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Synthesize stylized pairs from prompts and style references into stylized/.

    With --dry-run it shows the plan: how many prompts, styles and images in each split, prompts
    before and after de-stylising, and which models are missing.

    Example: stylear curate synthesize manifests/demo.yaml --out corpus
    """
    if dry_run:
        from stylear.curate import run as runner
        from stylear.curate.stage import Build
        from stylear.curate.synthesize.preview import preview_plan, tables

        place = recipe if recipe is not None else runner.recipe_path(out)
        runner.check_place(out)
        found = preview_plan(Build(out, _load(place, set_)))
        if json:
            emit_json(found)
        else:
            emit_tables(tables(found))
        return
    _stage("synthesize", recipe, out, workers, set_, redo, json, engine, ray_address)


@app.command()
def score(
    out: OutOption,
    recipe: StageRecipe = None,
    workers: WorkersOption = 0,
    set_: SetOption = [],  # noqa: B006
    redo: Annotated[bool, typer.Option("--redo", help="Score again, from nothing.")] = False,
    engine: EngineOption = "local",
    ray_address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Score every pair with every scorer of the recipe into scores/.

    Example: stylear curate score manifests/demo.yaml --out corpus
    """
    _stage("score", recipe, out, workers, set_, redo, json, engine, ray_address)


@app.command("filter")
def filter_(
    out: OutOption,
    recipe: StageRecipe = None,
    set_: SetOption = [],  # noqa: B006
    redo: Annotated[bool, typer.Option("--redo", help="Decide again, from nothing.")] = False,
    dry_run: DryRunOption = False,
    diversity: Annotated[
        bool, typer.Option("--diversity", help="With --dry-run: how diverse what stays would be.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Decide which pairs stay, from their scores, into verdicts.parquet; how diverse they are.

    With --dry-run it says how many would stay or be dropped for which reason, e.g. under other
    thresholds given with --set. After the first run that takes less than a second for a million pairs.

    Example: stylear curate filter --out corpus --set filter.best_of=2 --dry-run
    """
    from dataclasses import asdict

    from stylear.curate import filter as rules
    from stylear.curate import run as runner

    loaded = _load(recipe if recipe is not None else runner.recipe_path(out), set_)
    found: dict[str, Any]
    if dry_run:
        rows = rules.decide(rules.open_rows(out, loaded, diversity=diversity), loaded.filter)
        found = {"funnel": rules.funnel(rows), "kept": rules.what_stays(rows)}
        tables = [found["funnel"], [found["kept"]]]
        if diversity:
            found["diversity"] = rules.diversity_rows(rows, loaded)
            tables.append(found["diversity"])
    else:
        done = runner.run_stages(["filter"], loaded, out, redo="filter" if redo else None)
        found = {"stages": [asdict(one) for one in done], "diversity": rules.read_diversity(out)}
        tables = [[one.row() for one in done], found["diversity"]]
    if json:
        emit_json(found)
        return
    for place, table in enumerate(tables):
        if place:
            print()
        emit_table(table)


@app.command()
def mix(
    out: OutOption,
    recipe: StageRecipe = None,
    set_: SetOption = [],  # noqa: B006
    redo: Annotated[bool, typer.Option("--redo", help="Mix again, from nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Mix kept raw and stylized pairs into training shards, train/ and val/.

    Example: stylear curate mix manifests/demo.yaml --out corpus
    """
    _stage("mix", recipe, out, 1, set_, redo, json)


@app.command()
def pairs(
    out: OutOption,
    recipe: StageRecipe = None,
    set_: SetOption = [],  # noqa: B006
    redo: Annotated[bool, typer.Option("--redo", help="Pair again, from nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Pair best and worst candidates into preferences/, and write the manifest.

    Example: stylear curate pairs manifests/demo.yaml --out corpus
    """
    _stage("pairs", recipe, out, 1, set_, redo, json)


@app.command()
def audit(corpus: CorpusArgument, json: JsonOption = False) -> None:
    """Prove a finished corpus: hash every file, follow every key, recount ratio and splits.

    Exit 0 when nothing differs from the manifest, 1 when anything does; it changes nothing.

    Example: stylear curate audit corpus
    """
    from stylear.curate.audit import auditor as auditor

    result = auditor.audit(corpus)
    if json:
        emit_json(result.summary())
    else:
        emit_table(result.rows())
    result.require()


@app.command()
def query(
    corpus: CorpusArgument,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT.")],
    json: JsonOption = False,
) -> None:
    """Ask a corpus something in SQL; nothing can be changed by it.

    Tables: pairs (raw and stylized), verdicts, columns (what the filter compares, with every score),
    mix, train, val, preferences.

    Example: stylear curate query corpus "select reason, count(*) from verdicts group by reason"
    """
    from stylear.curate import query as asker
    from stylear.curate import run as runner

    runner.recipe_path(corpus)
    rows = asker.query(corpus, sql)
    emit_json(rows) if json else emit_table(rows)


@app.command()
def report(corpus: CorpusArgument, json: JsonOption = False) -> None:
    """Draw a corpus as one page: funnel, scores, pictures of each style, files and hashes.

    Example: stylear curate report corpus
    """
    from stylear.curate import run as runner

    runner.recipe_path(corpus)
    page = runner.write_report(corpus)
    emit_json({"report": str(page)}) if json else print(f"report: {page}")


def _load(
    recipe: Path,
    changes: list[str],
    min_success: float | None = None,
    allow_networks: Sequence[str] = (),
) -> Recipe:
    """The recipe with the --set changes, --min-success and --allow-network."""
    import yaml

    from stylear.curate.recipe import load_recipe, with_downloads

    overrides: dict[str, Any] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {change}: expected KEY=VALUE, e.g. mix.val_fraction=0.2")
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {change}: the value is not valid YAML") from error
    return with_downloads(load_recipe(recipe, overrides), min_success, allow_networks)


def _stage(
    stage: str,
    recipe: Path | None,
    out: Path,
    workers: int,
    changes: list[str],
    redo: bool,
    json: bool,
    engine: str = "local",
    ray_address: str | None = None,
    min_success: float | None = None,
    allow_networks: Sequence[str] = (),
) -> None:
    """Run one stage and print what it did."""
    from dataclasses import asdict

    from stylear.curate import run as runner
    from stylear.curate.engine import Engine

    place = recipe if recipe is not None else runner.recipe_path(out)
    loaded = _load(place, changes, min_success, allow_networks)
    results = runner.run_stages(
        [stage],
        loaded,
        out,
        workers=workers,
        redo=stage if redo else None,
        engine=Engine(engine, ray_address),
    )
    if json:
        emit_json([asdict(result) for result in results])
    else:
        emit_table([result.row() for result in results])
