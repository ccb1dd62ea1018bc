"""Lists: tables of URLs or file names with captions, read row by row in their own order."""

from __future__ import annotations

import csv
import glob
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from stylear.errors import SourceError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

URL_COLUMNS = ("url", "URL", "image_url", "img_url", "Image URL")
CAPTION_COLUMNS = ("caption", "TEXT", "text", "top_caption", "alt_text", "alt", "prompt")
IMAGE_COLUMNS = ("image", "file_name", "filename", "file", "path")
KINDS = (".parquet", ".csv", ".tsv", ".json", ".jsonl")
MAX_FIELD = 1 << 24  # characters of one CSV field; the csv module stops at 131,072 by itself
MAX_LINE = 1 << 25  # characters of one line: a small .gz can hold an endless one
MAX_JSON = 1 << 29  # characters of a .json list, which is read as a whole


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a list: the place it names (URL or file), its caption, and its other columns."""

    place: object
    caption: object
    columns: dict[str, object]


def list_paths(path: Path) -> list[Path]:
    """The files of a list: the file itself, a folder's lists, or what a pattern matches; sorted.

    Raises SourceError when there is none or one is of another kind.
    """
    if path.is_dir():
        found = [file for file in path.iterdir() if kind_of(file) in KINDS]
    elif glob.has_magic(str(path)):
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207 (absolute pattern)
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise SourceError(
            f"{path}: expected a list ({', '.join(KINDS)}), found nothing",
            hint="give the path of a list; relative paths start at the recipe's folder",
        )
    for file in found:
        if kind_of(file) not in KINDS:
            raise SourceError(
                f"{file}: expected one of {', '.join(KINDS)} (all but parquet also as .gz),"
                f" found {file.suffix or 'no ending'}"
            )
    return sorted(found)


def kind_of(path: Path) -> str:
    """The ending that says what a list is, without `.gz`."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def read_list(
    path: Path, names: tuple[str, ...], captions: tuple[str, ...], what: str
) -> Iterator[Row]:
    """The rows of one list; `names` and `captions` are the columns to look for, first match wins.

    Raises SourceError naming the file and the columns found when one is missing, and for a file
    that cannot be read.
    """
    try:
        rows = _OPENERS[kind_of(path)](path)
        first = next(rows, None)
        if first is None:
            raise SourceError(f"{path}: expected rows, found none")
        place = _column(path, first, names, what)
        caption = _column(path, first, captions, "caption")
        while first is not None:
            rest = {k: v for k, v in first.items() if k not in (place, caption)}
            yield Row(first.get(place), first.get(caption), rest)
            first = next(rows, None)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error


def count_rows(path: Path) -> int | None:
    """How many rows a list has, where that is known without reading it."""
    if kind_of(path) != ".parquet":
        return None
    with _open_parquet(path) as file:
        return int(file.metadata.num_rows)


def _column(path: Path, row: dict[str, object], names: tuple[str, ...], what: str) -> str:
    for name in names:
        if name in row:
            return name
    expected = " or ".join(repr(name) for name in names)
    raise SourceError(
        f"{path}: expected a {what} column called {expected}, found {', '.join(map(repr, row))}",
        hint=f"name the column in the recipe ({what}_column) or in the file",
    )


def _open_parquet(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: expected a Parquet file: {error}") from error


def _parquet_rows(path: Path) -> Iterator[dict[str, object]]:
    import pyarrow as pa

    with _open_parquet(path) as file:
        if file.metadata.num_rows == 0:
            yield from ()
        try:
            for batch in file.iter_batches(batch_size=1024):
                yield from cast("list[dict[str, object]]", batch.to_pylist())
        except pa.ArrowException as error:
            raise SourceError(f"{path}: cannot be read: {error}") from error


def _text(path: Path, newline: str | None = None) -> IO[str]:
    """The file as text; a byte that is no UTF-8 becomes a mark instead of ending the list."""
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    file: IO[str] = opener(path, "rt", encoding="utf-8-sig", errors="replace", newline=newline)
    return file


def _csv_rows(path: Path, delimiter: str = ",") -> Iterator[dict[str, object]]:
    csv.field_size_limit(MAX_FIELD)
    with _text(path, newline="") as file:
        lines = (line.replace("\0", "") for line in _lines(path, file))
        for row in csv.DictReader(lines, delimiter=delimiter):
            yield {name: value for name, value in row.items() if isinstance(name, str)}


def _tsv_rows(path: Path) -> Iterator[dict[str, object]]:
    return _csv_rows(path, "\t")


def _jsonl_rows(path: Path) -> Iterator[dict[str, object]]:
    with _text(path) as file:
        for number, line in enumerate(_lines(path, file), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{path}, line {number}: expected JSON: {error}") from error
            yield _object(row, f"{path}, line {number}")


def _json_rows(path: Path) -> Iterator[dict[str, object]]:
    """An array of objects."""
    with _text(path) as file:
        text = file.read(MAX_JSON + 1)
    if len(text) > MAX_JSON:
        raise SourceError(
            f"{path}: expected at most {MAX_JSON:,} characters of JSON, found more",
            hint="use .jsonl or .parquet, which are read row by row",
        )
    try:
        rows = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: expected JSON: {error}") from error
    if not isinstance(rows, list):
        raise SourceError(f"{path}: expected an array of objects, found {type(rows).__name__}")
    for number, row in enumerate(rows, start=1):
        yield _object(row, f"{path}, row {number}")


def _object(row: object, where: str) -> dict[str, object]:
    if not isinstance(row, dict):
        raise SourceError(f"{where}: expected an object, found {type(row).__name__}")
    return row


def _lines(path: Path, file: IO[str]) -> Iterator[str]:
    """Lines of bearable length."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise SourceError(f"{path}: expected lines of less than {MAX_LINE:,} characters")
        yield line


_OPENERS: dict[str, Callable[[Path], Iterator[dict[str, object]]]] = {
    ".parquet": _parquet_rows,
    ".csv": _csv_rows,
    ".tsv": _tsv_rows,
    ".json": _json_rows,
    ".jsonl": _jsonl_rows,
}
