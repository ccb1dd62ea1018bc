"""Lists of URLs or file names with captions, read row by row in file order.

Every row of a file becomes a Row: with a URL or file name and a caption, or with a rejection reason.
"""

from __future__ import annotations

import csv
import glob
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from stylear.curate.fetch.lists.delimited import read_delimited
from stylear.curate.fetch.lists.json_lists import read_json, read_jsonl
from stylear.curate.fetch.lists.parquet_lists import open_parquet, read_parquet
from stylear.curate.fetch.lists.row import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    URL_COLUMNS,
    ListFormat,
    Record,
    Row,
)
from stylear.errors import SourceEmpty, SourceError

__all__ = [
    "CAPTION_COLUMNS",
    "IMAGE_COLUMNS",
    "KINDS",
    "URL_COLUMNS",
    "ListFormat",
    "Row",
    "count_rows",
    "find_lists",
    "list_kind",
    "read_list",
]

KINDS = (".parquet", ".csv", ".tsv", ".json", ".jsonl")
NO_PARTS = ("dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json")
LOOK_ROWS = 1000  # rows read to find the columns, since the first may lack some


def find_lists(path: Path) -> list[Path]:
    """The files of a list, sorted: the file itself, a folder's parts, or the matches of a pattern.

    Hidden files in a folder and metadata that tools write beside the parts are skipped. Raises SourceError
    when there is no list, one is of another kind, or a folder holds lists of two kinds.
    """
    if path.is_dir():
        files = [file for file in path.iterdir() if is_part(file)]
        kinds = sorted({list_kind(file) for file in files})
        if len(kinds) > 1 and ".parquet" in kinds:
            files = [file for file in files if list_kind(file) != ".json"]
            kinds = sorted({list_kind(file) for file in files})
        if len(kinds) > 1:
            raise SourceError(
                f"{path}: expected lists of one kind, found {' and '.join(kinds)}",
                hint=f"name them by a pattern, e.g. {path.name}/*{kinds[0]}",
            )
    elif glob.has_magic(str(path)):
        files = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207 (absolute pattern)
        files = [file for file in files if not file.name.startswith("._")]
    else:
        files = [path] if path.is_file() else []
    if not files:
        raise (SourceEmpty if path.is_dir() else SourceError)(
            f"{path}: expected a list ({', '.join(KINDS)}), found nothing",
            hint="give the path of a list; relative paths start at the recipe's folder",
        )
    for file in files:
        if list_kind(file) not in KINDS:
            raise SourceError(
                f"{file}: expected one of {', '.join(KINDS)} (all but parquet also as .gz),"
                f" found {file.suffix or 'no extension'}"
            )
    return sorted(files)


def is_part(file: Path) -> bool:
    """Whether a file of a folder is a part of its list."""
    beside = file.name.startswith((".", "_")) or file.name in NO_PARTS
    return (
        file.is_file()
        and not beside
        and not file.name.endswith("_stats.json")
        and list_kind(file) in KINDS
    )


def list_kind(path: Path) -> str:
    """The ending that gives the format of a list, without `.gz`."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def read_list(
    path: Path,
    names: Sequence[str],
    captions: Sequence[str],
    what: str,
    form: ListFormat | None = None,
    *,
    fall_back: bool = False,
    can_be_empty: bool = False,
) -> Iterator[Row]:
    """Read the rows of one list; the first of `names` and of `captions` that it has are its columns.

    A row that lacks the first column takes the next; with `fall_back` also where its value is missing.
    Raises SourceError naming the file and the columns found when one is missing, for captions that are
    numbers, and for a file that cannot be read; SourceEmpty for a list without rows, unless it
    `can_be_empty` as one part of several.
    """
    try:
        records = read_records(path, form or ListFormat())
        look = list(islice(records, LOOK_ROWS))
        if not look:
            if can_be_empty:
                return
            raise SourceEmpty(
                f"{path}: expected rows, found none", hint="add rows, or give another list"
            )
        known = dict.fromkeys(name for record in look for name in record.values)
        if not known:
            raise SourceError(
                f"{path}, line {look[0].line}: expected rows with a {what} and a caption, found none"
                " that can be read"
            )
        targets = find_columns(path, known, names, what)
        texts = find_columns(path, known, captions, "caption")
        check_captions(path, look, texts)
        for record in chain(look, records):
            yield make_row(record, targets, texts, fall_back)
    except (OSError, EOFError, UnicodeError, zlib.error, csv.Error) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error


def read_records(path: Path, form: ListFormat) -> Iterator[Record]:
    """Read the rows of a file by its format."""
    match list_kind(path):
        case ".parquet":
            return read_parquet(path)
        case ".json":
            return read_json(path, form)
        case ".jsonl":
            return read_jsonl(path, form)
        case kind:
            return read_delimited(path, kind, form)


def count_rows(path: Path) -> int | None:
    """The number of rows of a list, if it is known without reading it."""
    if list_kind(path) != ".parquet":
        return None
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def find_columns(
    path: Path, known: dict[str, None], names: Sequence[str], what: str
) -> tuple[str, ...]:
    """Those of `names` that the list has, in order. Raises SourceError if it has none."""
    columns = tuple(name for name in names if name in known)
    if columns:
        return columns
    expected = " or ".join(repr(name) for name in names)
    has = ", ".join(map(repr, known))
    if any("://" in name for name in known):
        hint = (
            "the first row looks like data: say what the columns are, e.g. columns: [caption, url]"
        )
    elif what == "url" and {"image", "images"} & known.keys():
        hint = "if the pictures are inside the file, use a source of type: parquet"
    else:
        hint = f"name the column in the recipe ({what}_column) or in the file"
    raise SourceError(f"{path}: expected a {what} column called {expected}, found {has}", hint=hint)


def check_captions(path: Path, look: Sequence[Record], columns: Sequence[str]) -> None:
    """Raise SourceError if all captions are numbers, as another column was meant."""
    for name in columns:
        values = [r.values[name] for r in look if r.values.get(name) is not None]
        if values and all(isinstance(value, int | float) for value in values):
            raise SourceError(
                f"{path}: expected text in column {name!r}, found {type(values[0]).__name__}"
                f" {values[0]!r}",
                hint="set caption_column in the recipe to the column with the captions",
            )


def make_row(
    record: Record, targets: Sequence[str], captions: Sequence[str], fall_back: bool
) -> Row:
    """Choose the columns of a row."""
    values = record.values

    def pick(names: Sequence[str]) -> object:
        candidates = (values[name] for name in names if name in values)
        return next((v for v in candidates if v is not None or not fall_back), None)

    others = {k: v for k, v in values.items() if k not in (*targets[:1], *captions[:1])}
    return Row(pick(targets), pick(captions), others, record.line, record.reason)
