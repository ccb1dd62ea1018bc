"""Models that were trained on a corpus, according to their lineage."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stylear.curate.corpus.layout import MANIFEST
from stylear.curate.corpus.parquet import file_sha256
from stylear.curate.corpus.tombstones import read_tombstones
from stylear.errors import UsageError

MODEL = "stylear.json"


def find_models(corpus: Path, folders: Iterable[Path]) -> list[dict[str, Any]]:
    """The models below some folders that were trained on the corpus: {model, trained_on}.

    A model matches if it records the hash of the corpus's manifest, the present one or that before an earlier
    forget. One that records another hash but the corpus's name is listed as `another version`, whose pairs
    are unknown. Raises UsageError for a folder that does not exist.
    """
    manifest = corpus / MANIFEST
    present = file_sha256(manifest) if manifest.is_file() else None
    earlier = read_tombstones(corpus).manifests
    models = []
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"--runs {folder}: expected a folder with training runs, found none")
        for file in sorted(folder.rglob(MODEL)):
            for trained in read_corpora(file):
                sha256 = trained.get("manifest_sha256")
                if sha256 is not None and sha256 == present:
                    version = "this version"
                elif sha256 in earlier:
                    version = "an earlier version"
                elif trained.get("name") == corpus.resolve().name:
                    version = "another version"
                else:
                    continue
                models.append({"model": str(file.parent), "trained_on": version})
    return models


def read_corpora(file: Path) -> list[dict[str, Any]]:
    """The corpora in the lineage of a model; empty for any other file."""
    try:
        corpora = json.loads(file.read_text("utf-8"))["base"]["corpora"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return (
        [corpus for corpus in corpora if isinstance(corpus, dict)]
        if isinstance(corpora, list)
        else []
    )
