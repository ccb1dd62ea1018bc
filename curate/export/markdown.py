"""Untrusted text inside Markdown: shown literally, without any effect as markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from stylear.curate.corpus.captions import clean_text

MAX_TEXT = 200  # characters of a text that is shown
PLAIN = re.compile(
    r"[ !-%'-;=?-[\]-_a-{}~]+"
)  # printable ASCII without & < > \ ` |: inert between backticks
PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


class OwnMarkdown(str):
    """Markdown written by this project; a cell takes it unescaped."""


def inert_text(text: object) -> str:
    """A text as one piece of Markdown without meaning: code if it is plain, else character references.

    A reference such as `&#42;` never is markup (CommonMark 6.4), opens no tag, ends no cell of a table
    and makes no link.
    """
    shown = clean_text(str(text), MAX_TEXT)
    if PLAIN.fullmatch(shown):
        return f"`{shown}`"
    return PUNCTUATION.sub(lambda match: f"&#{ord(match[0])};", shown) or "(empty)"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table. A text in a cell is made inert unless it is OwnMarkdown; a fraction is shown in percent."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell_text(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def cell_text(cell: object) -> str:
    """One cell of a table."""
    if isinstance(cell, OwnMarkdown):
        return cell
    if isinstance(cell, float):
        return f"{cell:.2%}"
    return f"{cell:,}" if isinstance(cell, int) else inert_text(cell)
