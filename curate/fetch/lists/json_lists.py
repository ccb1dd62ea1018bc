"""Reads JSON lists: lines of objects, an array, pandas' columns, or COCO's annotations."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stylear.curate.fetch.lists.row import ListFormat, Record
from stylear.curate.fetch.lists.text import read_lines
from stylear.errors import SourceError

MAX_JSON = 1 << 29  # characters of a .json list, which is read as a whole


def read_jsonl(path: Path, form: ListFormat) -> Iterator[Record]:
    """Read one object a line; a line that is no JSON object gets the reason `malformed-row`."""
    for number, line in read_lines(path, form.encoding, newline=None):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            yield Record(number, drop_missing(value))
        else:
            yield Record(number, {}, "malformed-row")


def read_json(path: Path, form: ListFormat) -> Iterator[Record]:
    """Read the rows of a JSON file. Raises SourceError for an unknown structure."""
    parts: list[str] = []
    size = 0
    for _, line in read_lines(path, form.encoding, newline=None):
        parts.append(line)
        size += len(line)
        if size > MAX_JSON:
            raise SourceError(
                f"{path}: expected at most {MAX_JSON:,} characters of JSON, found more",
                hint="use .jsonl or .parquet, which are read row by row",
            )
    text = "".join(parts)
    try:
        value = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: expected JSON, found: {error}") from error
    for number, row in enumerate(find_rows(path, value), start=1):
        if isinstance(row, dict):
            yield Record(number, drop_missing(row))
        else:
            yield Record(number, {}, "malformed-row")


def find_rows(path: Path, value: object) -> list[Any]:
    """Find the rows in a JSON value: an array, COCO's images with their captions, or pandas' columns."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        images, annotations = value.get("images"), value.get("annotations")
        if isinstance(images, list) and isinstance(annotations, list):
            return join_coco(images, annotations)
        columns = list(value.values())
        if columns and all(isinstance(column, dict) for column in columns):
            labels = list(dict.fromkeys(label for column in columns for label in column))
            return [
                {name: column[label] for name, column in value.items() if label in column}
                for label in labels
            ]
        lengths = {len(column) if isinstance(column, list) else -1 for column in columns}
        if len(lengths) == 1 and -1 not in lengths:
            return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
        found = f"an object with {', '.join(map(repr, list(value)[:5]))}"
    else:
        found = type(value).__name__
    raise SourceError(
        f"{path}: expected an array of objects, columns as pandas writes them, or COCO's images and"
        f" annotations, found {found}",
        hint="write one object per row: a .jsonl file, or a JSON array",
    )


def join_coco(images: list[Any], annotations: list[Any]) -> list[dict[str, Any]]:
    """Join COCO's images with the lists of their captions, in the order of the images."""
    captions: dict[Any, list[Any]] = {}
    for note in annotations:
        if isinstance(note, dict) and "caption" in note:
            captions.setdefault(str(note.get("image_id")), []).append(note["caption"])
    rows = []
    for image in images:
        if not isinstance(image, dict):
            rows.append(image)
            continue
        row = dict(image)
        row["url"] = image.get("url") or image.get("coco_url") or image.get("flickr_url")
        row["caption"] = captions.get(str(image.get("id")), [])
        rows.append(row)
    return rows


def drop_missing(row: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN, which pandas writes for a missing value, by None."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in row.items()
    }
