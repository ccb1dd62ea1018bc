"""What a stage is, and where each puts its files in a corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from stylear.errors import CorpusError
from stylear.pair import Pair

Stage = Callable[[Iterator[Pair]], Iterator[Pair]]
ShardKind = Literal["raw", "stylized"]

STAGES = ("fetch", "synthesize", "score", "filter", "mix", "pairs")
CHEAP = frozenset({"filter", "mix", "pairs"})  # redone when settings change; the rest stop instead
KINDS: tuple[ShardKind, ...] = ("raw", "stylized")

RECIPE = "recipe.yaml"
RECIPE_FOLDER = ".recipe-folder.json"  # where its relative paths start; no part of the manifest
SOURCE_HASHES = ".source-hashes.json"  # of the files of sources; no part of the manifest
MANIFEST = "manifest.json"
VERDICTS = "verdicts.parquet"
COLUMNS = "columns.parquet"  # what the rules of the filter compare
DIVERSITY = "diversity.json"
MIX = "mix.parquet"
PLAN = "plan"  # the groups that each growth of the corpus adds to stylized/
PLAN_STAGE = "synthesize.plan"  # of the ledger
LEDGER = "ledger"
REPORT = "report"
LOCK = ".lock"
FETCHED = "fetched"  # when each download was made; differs in every run, so no part of the manifest
REFILL = ".refill"  # shards of a retry on their way to the place of the old ones
WORK = ".work"  # scratch of the downloads; removed once fetch is done


def score_path(corpus: Path, scorer: str, kind: ShardKind, index: int) -> Path:
    """Where the columns of one scorer for one shard lie: `scores/<scorer>/raw-00000.parquet`."""
    return corpus / "scores" / scorer / f"{kind}-{index:05d}.parquet"


def score_paths(corpus: Path, scorer: str) -> list[Path]:
    """All score files of one scorer, raw before stylized, in shard order."""
    folder = corpus / "scores" / scorer
    return [path for kind in KINDS for path in sorted(folder.glob(f"{kind}-*.parquet"))]


def conserve(stage: Stage, name: str) -> Stage:
    """`stage`, checked: every key that goes in comes out once, kept or dropped, in order.

    Raises CorpusError naming the stage and the key that was lost or invented.
    """

    def checked(pairs: Iterator[Pair]) -> Iterator[Pair]:
        waiting: list[str] = []

        def watched() -> Iterator[Pair]:
            for pair in pairs:
                waiting.append(pair.key)
                yield pair

        for pair in stage(watched()):
            if not waiting or waiting[0] != pair.key:
                expected = waiting[0] if waiting else "no pair"
                raise CorpusError(f"stage {name}: expected {expected} next, found {pair.key}")
            waiting.pop(0)
            yield pair
        if waiting:
            raise CorpusError(f"stage {name}: {waiting[0]} went in and did not come out")

    return checked
