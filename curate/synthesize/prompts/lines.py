"""Read a text file with one prompt or one word per line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stylear.curate.corpus.captions import MAX_CAPTION, clean_text
from stylear.errors import SourceError

MAX_LINES = 1_000_000


def read_lines(path: Path, key: str, noun: str) -> Iterator[str]:
    """The lines of a text file, made safe to store, without blank lines and comments (#).

    `key` of the recipe and `noun` (prompt, word) are for errors. Raises SourceError if the file cannot
    be read, is empty, or has too many or too long lines.
    """
    count = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                text = clean_text(line, MAX_CAPTION + 1)
                if len(text) > MAX_CAPTION:
                    raise SourceError(
                        f"{key}: line {number} of {path}: expected at most {MAX_CAPTION}"
                        " characters, found more",
                        hint="shorten it",
                    )
                if text and not text.startswith("#"):
                    count += 1
                    if count > MAX_LINES:
                        raise SourceError(
                            f"{key}: {path}: expected at most {MAX_LINES:,} lines, found more",
                            hint="split the file over several corpora",
                        )
                    yield text
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{key}: cannot read {path}: {error}", hint=f"a UTF-8 text, one {noun} per line"
        ) from error
    if not count:
        raise SourceError(f"{key}: {path} contains no {noun}", hint=f"one {noun} per line")
