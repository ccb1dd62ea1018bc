"""The manifest: the auditable record of a finished corpus, derived from its ledger, without a clock."""

from __future__ import annotations

import json
import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stylear.curate.corpus import parquet
from stylear.curate.corpus.layout import (
    FETCHED,
    FORGET,
    LOCK,
    MANIFEST,
    RECIPE,
    RECIPE_FOLDER,
    REPORT,
    RETRY,
    REVIEW,
    SOURCE_HASHES,
    WORK,
)
from stylear.curate.corpus.ledger import Ledger, stage_family
from stylear.curate.corpus.split import SPLITS
from stylear.curate.corpus.storage import TEMPORARY, FileInfo, list_files, write_text
from stylear.curate.entry_points import SCORERS, SYNTHESIZERS, find_plugin
from stylear.curate.mix.shortfall import count_split, describe_shortfalls
from stylear.curate.recipe import Recipe, load_recipe
from stylear.curate.recipe.scores import BUILT_IN
from stylear.curate.recipe.synthesizers import BACKENDS
from stylear.curate.synthesize.truncation import describe_truncation
from stylear.errors import CorpusError

FORMAT = "stylear-corpus-1"
PACKAGES = (
    "stylear",
    "torch",
    "numpy",
    "pillow",
    "pyarrow",
    "open_clip_torch",
    "img2dataset",
    "opencv-python-headless",
)


def write_manifest(corpus: Path) -> Path:
    """Write `manifest.json`; the last thing that a run does to a corpus."""
    path = corpus / MANIFEST
    text = json.dumps(build_manifest(corpus), ensure_ascii=False, indent=1, allow_nan=False)
    write_text(path, text + "\n")
    return path


def read_warnings(corpus: Path) -> tuple[str, ...]:
    """Where a finished corpus falls short of its recipe; empty for an unfinished one."""
    path = corpus / MANIFEST
    if not path.is_file():
        return ()
    return tuple(str(text) for text in json.loads(path.read_text("utf-8")).get("warnings", ()))


def build_manifest(corpus: Path) -> dict[str, Any]:
    """The manifest: {format, name, recipe_sha256, stages, counts, ratio, splits, versions, files}.

    `files` has every file of the corpus but the manifest, the report, the lock and the times of
    downloads, with sha256 and bytes; hashes of committed files come from the ledger, which noted
    them as they were written.
    """
    ledger = Ledger(corpus)
    recipe = load_recipe(corpus / RECIPE)
    committed = {
        path: info
        for stage in ledger.stages()
        for entry in ledger.entries(stage)
        for path, info in entry.files.items()
    }
    files: dict[str, dict[str, Any]] = {}
    for name in corpus_files(corpus):
        if name in committed:
            files[name] = dict(committed[name])
        else:
            info = FileInfo.of(corpus / name)
            files[name] = {"sha256": info.sha256, "bytes": info.bytes}
    missing = sorted(set(committed) - set(files))
    if missing:
        raise CorpusError(
            f"{corpus}: {missing[0]} is in the ledger but not on disk",
            hint="`stylear curate run RECIPE --out CORPUS` rebuilds missing files",
        )
    splits: dict[str, dict[str, int]] = {split: count_split(corpus / split) for split in SPLITS}
    raw, stylized = (sum(s[kind] for s in splits.values()) for kind in ("raw", "stylized"))
    return {
        "format": FORMAT,
        "name": recipe.name,
        "seed": recipe.seed,
        "recipe_sha256": files[RECIPE]["sha256"],
        "stages": stage_counts(ledger),
        "counts": {
            "pairs": raw + stylized,
            "raw": raw,
            "stylized": stylized,
            "preferences": parquet.count_rows(corpus / "preferences"),
        },
        "ratio": {
            "raw_per_stylized": round(raw / stylized, 6) if stylized else None,
            "asked": recipe.mix.raw_per_stylized,
        },
        "splits": splits,
        "warnings": [
            *describe_truncation(ledger.entries("synthesize")),
            *describe_shortfalls(splits, recipe),
        ],
        "versions": versions() | plugin_versions(recipe),
        "files": files,
    }


def corpus_files(corpus: Path) -> list[str]:
    """Paths inside the corpus of every file that the manifest covers."""
    names = []
    for path in list_files(corpus):
        name = path.relative_to(corpus).as_posix()
        top = name.partition("/")[0]
        unfinished = path.name.startswith(".") and path.name.endswith(TEMPORARY)
        beside = top in (
            REPORT, WORK, FETCHED, FORGET, LOCK, RETRY, REVIEW, RECIPE_FOLDER, SOURCE_HASHES,
        )  # fmt: skip
        if name != MANIFEST and not beside and not unfinished:
            names.append(name)
    return sorted(names)


def stage_counts(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """The units, rows in, kept and dropped pairs (by reason) of each stage."""
    counts_by_stage: dict[str, dict[str, Any]] = {}
    for stage in ledger.stages():
        entries = ledger.entries(stage)
        units = [entry for entry in entries if entry.unit != "all"] or entries
        dropped: Counter[str] = Counter()
        for entry in units:
            dropped.update(entry.dropped)
        counts: dict[str, Any] = {"units": len(units), "rows": sum(e.rows_in for e in units)}
        if stage_family(stage) != "score":
            counts |= {"kept": sum(e.kept for e in units), "dropped": dict(sorted(dropped.items()))}
        counts_by_stage[stage] = counts
    return counts_by_stage


def plugin_versions(recipe: Recipe) -> dict[str, str]:
    """The version of each distribution whose plug-ins the recipe uses."""
    plugins = [
        find_plugin(SCORERS, spec.type) for spec in recipe.score if spec.type not in BUILT_IN
    ]
    if recipe.references and recipe.synthesize.backend not in BACKENDS:
        plugins.append(find_plugin(SYNTHESIZERS, recipe.synthesize.backend))
    return {plugin.distribution: plugin.version for plugin in plugins if plugin is not None}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect the bytes of a corpus."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
