"""The parquet source: files that contain the images, as Hugging Face data sets do."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from stylear.curate.corpus.captions import clean_caption, clean_details, plain_source
from stylear.curate.fetch.captions import caption_reason, choose_captions
from stylear.curate.fetch.ingest import STAGE
from stylear.curate.fetch.lists import CAPTION_COLUMNS, find_lists, list_kind
from stylear.curate.fetch.lists.parquet_lists import BAD_TEXT, column_values, open_parquet
from stylear.curate.fetch.urls import column_names
from stylear.errors import SourceError
from stylear.pair import Origin, Pair, content_id, digest

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe.sources import ParquetSource

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png", "webp")
BATCH_ROWS = 64  # all images of a batch are in memory


def read_parquet_images(source: ParquetSource, seed: int = 0) -> Iterator[Pair]:
    """A pair for every row and caption, in the order of the files. Keys are unique.

    Dropped: missing-image, too-large, no-caption, caption-not-text, caption-not-utf8,
    duplicate-row (a picture and caption that were there before).
    Raises SourceError for a file without such columns.
    """
    seen: Counter[str] = Counter()
    count = 0
    for path in find_lists(source.path):
        if list_kind(path) != ".parquet":
            raise SourceError(f"{path}: expected Parquet files, found {path.suffix}")
        for number, image, caption, details in read_rows(path, source):
            for raw in choose_captions(
                caption, source.captions_per_image, seed, f"{path.name}:{number}"
            ):
                if source.limit is not None and count >= source.limit:
                    return
                count += 1
                pair = make_pair(path, number, image, raw, details, source.max_bytes)
                repeats = seen[pair.key]
                seen[pair.key] += 1
                if repeats:
                    again = Pair(digest(pair.key, repeats), pair.caption, b"", pair.origin)
                    yield again.drop(STAGE, "duplicate-row")
                else:
                    yield pair


def read_rows(
    path: Path, source: ParquetSource
) -> Iterator[tuple[int, object, object, dict[str, object]]]:
    """(row from 1, image cell, caption cell, other columns) of a file."""
    import pyarrow as pa

    with open_parquet(path) as file:
        names = file.schema_arrow.names
        image = pick_column(path, names, column_names(source.image_column, IMAGE_COLUMNS), "image")
        caption = pick_column(
            path, names, column_names(source.caption_column, CAPTION_COLUMNS), "caption"
        )
        number = 0
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                images = image_cells(path, image, batch.column(image))
                others = {
                    name: column_values(batch.column(name)) for name in names if name != image
                }
                for row in range(batch.num_rows):
                    number += 1
                    values = {name: column[row] for name, column in others.items()}
                    text = values.pop(caption)
                    details = {k: v for k, v in values.items() if v is not BAD_TEXT}
                    yield number, images[row], text, details
        except pa.ArrowException as error:
            raise SourceError(f"{path}: cannot be read: {error}") from error


def pick_column(path: Path, names: list[str], candidates: tuple[str, ...], what: str) -> str:
    """The first of `candidates` that the file has. Raises SourceError naming the columns."""
    for name in candidates:
        if name in names:
            return name
    raise SourceError(
        f"{path}: expected a {what} column called {' or '.join(map(repr, candidates))}, found"
        f" {', '.join(map(repr, names))}",
        hint=f"name the column in the recipe ({what}_column)",
    )


def image_cells(path: Path, name: str, column: pa.Array) -> list[object]:
    """The cells of an image column: {"bytes", "path"}, or bytes. Raises SourceError for another type."""
    import pyarrow as pa

    kind = column.type
    is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (is_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise SourceError(
            f"{path}: expected pictures in column {name!r} (bytes, or a struct of bytes and path),"
            f" found {kind}",
            hint="a column of URLs or file names is a source of type: urls or folder",
        )
    cells: list[object] = column.to_pylist()
    return cells


def make_pair(
    path: Path, number: int, cell: object, raw: object, details: dict[str, object], max_bytes: int
) -> Pair:
    """The pair of one cell and one of its captions."""
    data, name = cell, None
    if isinstance(cell, dict):
        data, name = cell.get("bytes"), cell.get("path")
    image = data if isinstance(data, bytes) else b""
    reason = None if image else "missing-image"
    if len(image) > max_bytes:
        reason = "too-large"
    text = raw if isinstance(raw, str) else None
    caption, notes = clean_caption(text)
    if reason is None and not caption:
        reason = "caption-not-utf8" if raw is BAD_TEXT else caption_reason(raw, caption)
    sha256 = hashlib.sha256(image).hexdigest() if image else None
    shown = PurePosixPath(str(name).replace("\\", "/")).name if name else str(number)
    origin = Origin(
        kind="raw",
        source=f"parquet:{plain_source(f'{path.name}/{shown}')}",
        content=content_id(caption),
        source_sha256=sha256,
        details={**clean_details(details), **notes},
    )
    identity = sha256 or f"{path.name}:{number}"
    pair = Pair(digest("parquet", identity, text), caption, image, origin)
    return pair if reason is None else pair.drop(STAGE, reason)
