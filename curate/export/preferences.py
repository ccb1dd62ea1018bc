"""Preference pairs as rows: prompt, both pictures and their scores, which trainers of DPO read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stylear.curate.corpus.records import IMAGE_EXTS
from stylear.curate.corpus.shards import tar_samples
from stylear.curate.export.corpus import ExportedCorpus
from stylear.curate.export.row_groups import Row, image_value, schema_with_images
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

SIDES = ("chosen", "rejected")
COLUMNS = {  # column: (type, field of the pair's record)
    "key": ("string", "key"),
    "prompt": ("string", "caption"),
    "reference": ("string", "reference"),
    "chosen_key": ("string", "chosen"),
    "rejected_key": ("string", "rejected"),
    "chosen_score": ("float64", "chosen_score"),
    "rejected_score": ("float64", "rejected_score"),
    "margin": ("float64", "margin"),
}


def preference_schema() -> pa.Schema:
    """The schema of the rows."""
    return schema_with_images(SIDES, {name: kind for name, (kind, _) in COLUMNS.items()})


def preference_rows(corpus: ExportedCorpus, tar: Path) -> Iterator[tuple[Row, int]]:
    """The rows of a shard's preference pairs, each with the bytes of its pictures.

    Raises CorpusError unless the shard is the manifest's.
    """
    corpus.require_unchanged(tar)
    for key, members in tar_samples(tar):
        record = json.loads(members["json"])
        names = {side: side_name(tar, key, members, side) for side in SIDES}
        images = {side: image_value(members[name], f"{key}.{name}") for side, name in names.items()}
        columns = {column: record[name] for column, (_, name) in COLUMNS.items()}
        yield {**images, **columns}, sum(len(members[name]) for name in names.values())


def side_name(tar: Path, key: str, members: Mapping[str, bytes], side: str) -> str:
    """The member with the picture of one side: `chosen.png`."""
    for extension in IMAGE_EXTS:
        if f"{side}.{extension}" in members:
            return f"{side}.{extension}"
    raise CorpusError(f"{tar}: expected a {side} picture of {key}, found {', '.join(members)}")
