"""Parquet files written in row groups of bounded size, with pictures as the Image feature of `datasets`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_BYTES = 32 << 20  # of pictures; a larger one gets a row group of its own
ROW_GROUP_ROWS = 1000
Row = dict[str, Any]


def write_row_groups(path: Path, schema: pa.Schema, rows: Iterable[tuple[Row, int]]) -> None:
    """Write rows, each with the bytes of its pictures; one row group is in memory at a time.

    Pictures are stored uncompressed, all other columns compressed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [field.name for field in schema if pa.types.is_struct(field.type)]
    others = [name for name in schema.names if name not in images]
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(
        path,
        schema,
        compression=dict.fromkeys(others, "zstd") | {f"{name}.bytes": "none" for name in images},
        use_dictionary=others,
        write_statistics=others,
    ) as file:
        for group in group_rows(rows):
            file.write_table(pa.Table.from_pylist(group, schema), row_group_size=len(group))


def group_rows(rows: Iterable[tuple[Row, int]]) -> Iterator[list[Row]]:
    """Rows in groups of a bounded number of rows and of bytes."""
    group: list[Row] = []
    size = 0
    for row, added in rows:
        if group and (len(group) == ROW_GROUP_ROWS or size + added > ROW_GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(row)
        size += added
    if group:
        yield group


def schema_with_images(images: Sequence[str], columns: Mapping[str, str]) -> pa.Schema:
    """A schema of pictures and of plain columns, whose metadata declares the features to `datasets`."""
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [(name, image) for name in images]
    fields += [(name, getattr(pa, kind)()) for name, kind in columns.items()]
    features = {name: {"_type": "Image"} for name in images} | {
        name: {"dtype": kind, "_type": "Value"} for name, kind in columns.items()
    }
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def image_value(data: bytes, name: str) -> Mapping[str, Any]:
    """A picture in the format of the Image feature."""
    return {"bytes": data, "path": name}
