"""Reads CSV and TSV: every line becomes a row or an error, and no quote swallows the rows after it."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stylear.curate.fetch.lists.row import ListFormat, Record
from stylear.curate.fetch.lists.text import read_lines
from stylear.errors import SourceError

MAX_FIELD = 1 << 24  # characters of one CSV field; the csv module stops at 131,072 by itself
DELIMITERS = (",", "\t", ";", "|")
URL = re.compile(r'^\s*"?(?:https?:)?//\S')
QUOTE_HINT = (
    'write a quotation mark inside a quoted field as "", or set quoting: none in the recipe when'
    " quotation marks are part of the text"
)


def read_delimited(path: Path, kind: str, form: ListFormat) -> Iterator[Record]:
    """Read the rows of a .csv or .tsv file by its header, or by `columns` if it has none.

    A row with another number of fields than the header has the reason `malformed-row`. Raises SourceError
    for two columns of one name, for a quoted field that does not end, and for text in another encoding.
    """
    csv.field_size_limit(MAX_FIELD)
    numbered = (
        (number, line.replace("\0", "")) for number, line in read_lines(path, form.encoding)
    )
    lines = LineCounter(numbered)
    delimiter, first = sniff_delimiter(lines, kind, form)
    quoted = form.quoting == "csv" or (form.quoting == "auto" and kind == ".csv")
    rows = split_rows(path, lines.starting_with(first), delimiter, quoted)
    names = list(form.columns)
    if not names:
        header = next(rows, None)
        if header is None:
            return
        names = [name.strip() for name in header[1]]
        check_header(path, names)
    for line, fields in rows:
        if fields:
            yield make_record(names, line, fields)


class LineCounter:
    """Iterates over lines and counts them."""

    def __init__(self, numbered: Iterator[tuple[int, str]]) -> None:
        self.numbered, self.number = numbered, 0

    def __iter__(self) -> Iterator[str]:
        for self.number, line in self.numbered:  # noqa: B020
            yield line

    def starting_with(self, first: str | None) -> Iterator[str]:
        """Iterate again, starting with a line that was taken."""
        if first is not None:
            yield first
        yield from self


def sniff_delimiter(lines: LineCounter, kind: str, form: ListFormat) -> tuple[str, str | None]:
    """The delimiter and the first line that is not blank, which decides it unless one is declared."""
    usual = "\t" if kind == ".tsv" else ","
    first = next((line for line in lines if line.strip()), None)
    if form.delimiter is not None or first is None or usual in first:
        return form.delimiter or usual, first
    others = [mark for mark in DELIMITERS if mark in first]
    return (others[0] if len(others) == 1 else usual), first


def split_rows(
    path: Path, lines: Iterable[str], delimiter: str, quoted: bool
) -> Iterator[tuple[int, list[str]]]:
    """Split lines into rows: (line where it begins, fields)."""
    waiting: list[str] = []  # the lines of the row at hand

    def watch() -> Iterator[str]:
        for line in lines:
            waiting.append(line)
            yield line

    if quoted:
        reader = csv.reader(watch(), delimiter=delimiter, strict=True)
    else:
        reader = csv.reader(watch(), delimiter=delimiter, quoting=csv.QUOTE_NONE)
    line = 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise SourceError(
                f"{path}, line {line}: a quoted field that begins here is not closed properly: {error}",
                hint=QUOTE_HINT,
            ) from error
        if fields is None:
            return
        if len(waiting) > 1:
            check_swallowed(path, line, waiting, delimiter)
        yield line, fields
        line += len(waiting)
        waiting.clear()


def check_swallowed(path: Path, line: int, lines: Sequence[str], delimiter: str) -> None:
    """Raise SourceError if a field of several lines seems to contain rows."""
    for offset, text in enumerate(lines[1:], start=1):
        if URL.match(text) and delimiter in text:
            raise SourceError(
                f"{path}, line {line}: a quoted field that begins here holds line {line + offset},"
                f" which looks like a row: {text.strip()[:60]!r}",
                hint=QUOTE_HINT,
            )


def check_header(path: Path, names: Sequence[str]) -> None:
    """Raise SourceError for duplicate column names."""
    name, count = (
        Counter(name for name in names if name).most_common(1)[0] if any(names) else ("", 0)
    )
    if count > 1:
        numbers = [str(number) for number, other in enumerate(names, start=1) if other == name]
        raise SourceError(
            f"{path}: expected columns of different names, found {name!r} as columns {' and '.join(numbers)}",
            hint="rename one of them in the file",
        )


def make_record(names: Sequence[str], line: int, fields: Sequence[str]) -> Record:
    """A row by column names; empty fields beyond the header, as spreadsheets leave them, are ignored."""
    surplus = fields[len(names) :]
    if len(fields) < len(names) or any(field.strip() for field in surplus):
        return Record(line, {}, "malformed-row")
    return Record(line, {n: v for n, v in zip(names, fields, strict=False) if n})
