"""Parquet with the pictures inside: one file per shard, in the layout of Hugging Face data sets.

`data/train-00000-of-00003.parquet` has the columns of a record and `image`, a struct of bytes and path
whose feature the schema declares, so that `datasets` decodes it and everyone else reads plain bytes.
`preferences/` has the preference pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from stylear.curate.export.base import Export
from stylear.curate.export.corpus import PREFERENCES
from stylear.curate.export.preferences import preference_rows, preference_schema
from stylear.curate.export.record import FIELDS, SPLIT_NAMES, flatten_pair, image_name
from stylear.curate.export.row_groups import Row, image_value, schema_with_images, write_row_groups
from stylear.pair import Pair

ROW_BYTES = 700  # of a record without its picture, approximately


class ParquetExport(Export):
    """Parquet files with records and pictures."""

    def write(self, folder: Path) -> None:
        schema = schema_with_images(["image"], {name: kind for name, (kind, _) in FIELDS.items()})
        for split in self.corpus.split_sizes:
            tars = self.corpus.shards(split)
            for index, tar in enumerate(tars):
                path = folder / "data" / part_name(split, index, len(tars), "parquet")
                pairs = self.track(self.corpus.shard_pairs(tar))
                write_row_groups(path, schema, pair_rows(pairs, split))
        tars = self.corpus.preference_shards()
        for index, tar in enumerate(tars):
            path = folder / PREFERENCES / part_name("train", index, len(tars), "parquet")
            write_row_groups(path, preference_schema(), preference_rows(self.corpus, tar))

    def estimate_bytes(self) -> int:
        preferences = self.corpus.total_bytes(self.corpus.preference_shards())
        return self.image_bytes() + ROW_BYTES * self.corpus.num_pairs + preferences


def part_name(split: str, index: int, count: int, ending: str) -> str:
    """`train-00000-of-00003.parquet`, the name by which `datasets` knows the split."""
    return f"{SPLIT_NAMES[split]}-{index:05d}-of-{count:05d}.{ending}"


def pair_rows(pairs: Iterable[Pair], split: str) -> Iterator[tuple[Row, int]]:
    """The records of pairs with their pictures, each with the bytes of its picture."""
    for pair in pairs:
        image = image_value(pair.image, image_name(pair))
        yield {"image": image, **flatten_pair(pair, split)}, len(pair.image)
