"""The stages, and where each writes its files in a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

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
RETRY = ".retry"  # finished shards of a retry, before they replace the old ones
FORGET = ".forget"  # new versions of files with forgotten pairs, before they replace the old ones
TOMBSTONES = "tombstones.json"  # hashes of pairs that were forgotten and must not come back
REVIEW = "review"  # what people said of pairs; grows at any time, so no part of the manifest
ANSWERS = f"{REVIEW}/answers.jsonl"
WORK = ".work"  # temporary files of downloads; removed once fetch is done


def score_path(corpus: Path, scorer: str, kind: ShardKind, index: int) -> Path:
    """The path of one scorer's columns for one shard: `scores/<scorer>/raw-00000.parquet`."""
    return corpus / "scores" / scorer / f"{kind}-{index:05d}.parquet"


def score_paths(corpus: Path, scorer: str) -> list[Path]:
    """The score files of one scorer, raw before stylized, in shard order."""
    folder = corpus / "scores" / scorer
    return [path for kind in KINDS for path in sorted(folder.glob(f"{kind}-*.parquet"))]
