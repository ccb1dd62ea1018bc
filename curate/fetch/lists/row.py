"""Rows of lists, and the usual names of their columns."""

from __future__ import annotations

from dataclasses import dataclass, field

URL_COLUMNS = ("url", "URL", "image_url", "img_url", "Image URL")
CAPTION_COLUMNS = (
    "caption", "TEXT", "text", "top_caption", "alt_text", "alt", "prompt", "captions",
)  # fmt: skip
IMAGE_COLUMNS = ("image", "file_name", "filename", "file", "path")


@dataclass(frozen=True, slots=True)
class ListFormat:
    """How to read a list; by default detected from the file."""

    encoding: str | None = None  # of text; None: by the byte order mark, else UTF-8
    delimiter: str | None = None  # of .csv and .tsv; None: by the ending, or what the header uses
    quoting: str = "auto"  # csv, none; auto: .csv has quotes, .tsv has none
    columns: tuple[str, ...] = ()  # names, for a file without a header


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a list: the URL or file that it names, its caption, and its other columns.

    A row with a `reason` cannot be used and is dropped for it. `line` is the line on which the row begins
    in a text file, or the number of the row, counted from 1.
    """

    target: object
    caption: object
    columns: dict[str, object] = field(default_factory=dict)
    line: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A row before its columns are chosen."""

    line: int
    values: dict[str, object]
    reason: str | None = None
