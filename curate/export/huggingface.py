"""A Hugging Face folder: WebDataset shards, preference pairs and a dataset card.

`datasets` infers types from the first five samples. So the JSON of a sample has the fields of a record in one
order, each of them a text, empty where there is none; width and height are numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylear.curate.corpus.records import canonical_json
from stylear.curate.corpus.storage import AtomicFile, write_text
from stylear.curate.corpus.tars import encode_sample, finish_tar
from stylear.curate.export.base import Export
from stylear.curate.export.card import dataset_card
from stylear.curate.export.corpus import PREFERENCES
from stylear.curate.export.parquet import part_name
from stylear.curate.export.record import FIELDS, flatten_pair, image_name
from stylear.errors import UsageError
from stylear.pair import Pair

NUMBERS = ("width", "height")
CARD_BYTES = 8000


class HuggingFaceExport(Export):
    """Shards that `datasets` streams, and a card."""

    def write(self, folder: Path) -> None:
        extension = self.require_one_format()
        for split in self.corpus.split_sizes:
            tars = self.corpus.shards(split)
            for index, tar in enumerate(tars):
                with AtomicFile(folder / "data" / part_name(split, index, len(tars), "tar")) as out:
                    for pair in self.track(self.corpus.shard_pairs(tar)):
                        out.write(*sample_members(pair, split))
                    finish_tar(out)
        preferences = self.corpus.preference_shards()
        for tar in preferences:
            self.corpus.copy_file(tar, folder / PREFERENCES / tar.name)
        card = dataset_card(self.corpus, self.facts, self.declared, extension, bool(preferences))
        write_text(folder / "README.md", card)

    def estimate_bytes(self) -> int:
        return (
            self.tar_bytes() + self.corpus.total_bytes(self.corpus.preference_shards()) + CARD_BYTES
        )

    def require_one_format(self) -> str:
        """The encoding of all pictures. Raises UsageError if they have several."""
        formats = sorted(self.facts.formats)
        if len(formats) != 1:
            raise UsageError(
                f"{self.corpus.path}: expected pictures of one encoding, since `datasets` reads a member"
                f" called png into another column than one called jpg; found {', '.join(formats) or 'none'}",
                hint="export with --to parquet, which has one column for all of them",
            )
        return formats[0]


def sample_members(pair: Pair, split: str) -> tuple[bytes | memoryview, ...]:
    """The members of a sample: picture, caption, record."""
    key, _, extension = image_name(pair).partition(".")
    record = canonical_json(text_record(flatten_pair(pair, split)))
    return encode_sample(key, extension, pair.image, pair.caption.encode(), record.encode())


def text_record(record: dict[str, Any]) -> dict[str, Any]:
    """A record without null and without types that depend on the pair."""
    return {
        name: record[name] if name in NUMBERS else "" if record[name] is None else str(record[name])
        for name in FIELDS
    }
