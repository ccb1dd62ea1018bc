"""Score tables: the key and a scorer's columns; the schema's metadata says how they were computed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

METADATA = b"stylear.scorer"
DECIMALS = 5  # our choice
PER_SHARD = ("captions_truncated", "batch_size_after_oom")
COLOUR = "colour"  # column beside the perceptual hash: mean RGB of the four quarters, hex


def make_table(
    keys: Sequence[str], columns: Mapping[str, pa.Array], metadata: Mapping[str, Any]
) -> pa.Table:
    """A score table with metadata."""
    import pyarrow as pa

    table = pa.table({"key": pa.array(keys, pa.string()), **columns})
    return table.replace_schema_metadata({METADATA: json.dumps(metadata, sort_keys=True).encode()})


def float_column(values: Iterable[float | None]) -> pa.Array:
    """Scores with five decimals, as float32; None is null, NaN stays NaN."""
    import pyarrow as pa

    return pa.array([v if v is None else round(v, DECIMALS) for v in values], pa.float32())


def string_column(values: Iterable[str | None]) -> pa.Array:
    """Texts, such as hashes; None is null."""
    import pyarrow as pa

    return pa.array(list(values), pa.string())


def bool_column(values: Iterable[bool | None]) -> pa.Array:
    """Yes, no or null."""
    import pyarrow as pa

    return pa.array(list(values), pa.bool_())


def read_metadata(table: pa.Table) -> dict[str, Any]:
    """The metadata of a score table: type, model, weights_sha256, dtype, preprocessing, fingerprint.

    Also, if it applies, `captions_truncated` (captions longer than the text encoder's context) and
    `batch_size_after_oom` (the batch size after the device ran out of memory).
    """
    metadata: dict[str, Any] = json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))
    return metadata


def shared_metadata(table: pa.Table) -> dict[str, Any]:
    """The metadata without the per-shard entries: equal for all tables of one column."""
    return {name: value for name, value in read_metadata(table).items() if name not in PER_SHARD}
