"""A corpus written by hand, as a finished one lies on disk: any pairs, without running a stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from builders.tiny_corpus import picture
from stylear.curate.corpus.parquet import write_table
from stylear.curate.corpus.shards import write_shard
from stylear.curate.corpus.storage import FileInfo, list_files
from stylear.curate.recipe import Recipe
from stylear.curate.recipe.recipe import dump_recipe
from stylear.pair import Origin, Pair, content_id, digest

URLS = {"type": "urls", "path": "list.csv", "robots": True}
FOLDER = {"type": "folder", "path": "photos"}
MODEL = {"model": "sdxl-base-1.0", "model_sha256": "ab" * 32}


def raw_pair(
    number: int, source: str = "", caption: str = "", image: bytes = b"", **details: Any
) -> Pair:
    """A raw pair; by default of a folder."""
    caption = caption or f"thing {number}"
    source = source or f"folder:photos/{number}.png"
    origin = Origin("raw", source, content_id(caption), "cd" * 32, details=details)
    return Pair(digest("raw", number), caption, image or picture(number), origin)


def stylized_pair(number: int, reference: str = "warm--1", **details: Any) -> Pair:
    """A pair of a synthesiser with weights, made of raw pair `number`."""
    caption = f"thing {number}"
    origin = Origin(
        "stylized",
        "synthesizer:instantstyle",
        content_id(caption),
        parent=digest("raw", number),
        reference=reference,
        reference_sha256="ef" * 32,
        details={"prompt": caption, "seed": 2**62 + number, **MODEL, **details},
    )
    return Pair(digest("stylized", number, reference), caption, picture(100 + number), origin)


def write_corpus(
    root: Path,
    splits: Mapping[str, Sequence[Sequence[Pair]]],
    sources: Sequence[Mapping[str, Any]] = (FOLDER,),
    dropped: Mapping[str, Mapping[str, int]] | None = None,
    fetched: Sequence[datetime] = (),
) -> Path:
    """Write `root/corpus`: of each split a shard for each list of pairs."""
    import pyarrow as pa

    corpus = root / "corpus"
    recipe = Recipe.model_validate({"name": "handmade", "seed": 3, "raw": list(sources)})
    corpus.mkdir(parents=True)
    (corpus / "recipe.yaml").write_text(dump_recipe(recipe), "utf-8")
    for split, shards in splits.items():
        for index, pairs in enumerate(shards):
            write_shard(corpus / split, index, pairs)
    if fetched:
        times = pa.array(list(fetched), pa.timestamp("ms", tz="UTC"))
        keys = pa.array([str(n) for n in range(len(fetched))])
        table = pa.table({"key": keys, "fetched_at": times})
        write_table(corpus / "fetched" / "00000.parquet", table)
    write_manifest(corpus, {s: sum(map(len, shards)) for s, shards in splits.items()}, dropped)
    return corpus


def write_manifest(
    corpus: Path,
    sizes: Mapping[str, int],
    dropped: Mapping[str, Mapping[str, int]] | None = None,
) -> None:
    """Write the parts of a manifest that readers of a corpus look at."""
    files = {}
    for path in list_files(corpus):
        name = path.relative_to(corpus).as_posix()
        if not name.startswith(("fetched/", "manifest.json")):
            info = FileInfo.of(path)
            files[name] = {"sha256": info.sha256, "bytes": info.bytes}
    manifest = {
        "format": "stylear-corpus-1",
        "name": "handmade",
        "recipe_sha256": files["recipe.yaml"]["sha256"],
        "stages": {stage: {"dropped": dict(counts)} for stage, counts in (dropped or {}).items()},
        "splits": {split: {"pairs": sizes.get(split, 0)} for split in ("train", "val")},
        "versions": {"stylear": "0.1.0"},
        "files": files,
    }
    (corpus / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def small_corpus(root: Path) -> Path:
    """Two shards to train on, one to validate; two styles, a licence, a stranger's columns."""
    licensed = raw_pair(0, licence="CC-BY-4.0", seed=1, prompt="of a stranger", model="theirs")
    return write_corpus(
        root,
        {
            "train": [
                [licensed, raw_pair(1), stylized_pair(0)],
                [raw_pair(2), stylized_pair(1, "cold")],
            ],
            "val": [[raw_pair(3), stylized_pair(3, "ink--2")]],
        },
    )


def day(text: str) -> datetime:
    """Noon of a day, UTC."""
    return datetime.fromisoformat(f"{text}T12:00:00").replace(tzinfo=UTC)
