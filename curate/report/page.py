"""A self-contained HTML page: a heading, a list of its sections, and the sections.

Every text is escaped, every picture is a data URI. The content security policy allows the page's own style
sheet, by its hash, and inline pictures; it forbids scripts, requests and everything else.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from pathlib import Path

CSS = Path(__file__).parent / "page.css"
MAX_TEXT = 160  # characters of a caption or a name; the corpus has the whole text


@dataclass(frozen=True, slots=True)
class Count:
    """A number that leads to what it counts."""

    number: int
    href: str


Cell = str | int | float | Count | None  # of a table


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a page, with the anchor that links to it."""

    anchor: str
    title: str
    body: str  # HTML


def render_page(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """A whole page; `introduction` is HTML between the heading and the sections."""
    css = CSS.read_text("utf-8")
    links = "".join(
        f'<li><a href="#{section.anchor}">{escape(section.title)}</a></li>' for section in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{content_security_policy(css)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{css}</style></head><body>"
        '<a class="skip" href="#content">Skip to the content</a>'
        f'<header><h1>{escape(title)}</h1><nav aria-label="Sections"><ul>{links}</ul></nav></header>'
        f'<main id="content">{introduction}{"".join(map(render_section, sections))}</main>'
        "</body></html>\n"
    )


def content_security_policy(css: str) -> str:
    """The policy that lets a browser apply this style sheet and show inline pictures, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(css.encode("utf-8")).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def render_section(section: Section) -> str:
    title = render_heading(2, section.title, section.anchor)
    return f'<section aria-labelledby="{section.anchor}">{title}{section.body}</section>'


def render_heading(level: int, text: str, anchor: str, note: str = "") -> str:
    """A heading that links to itself, with a note beside it."""
    beside = f' <span class="note">{escape(note)}</span>' if note else ""
    return f'<h{level} id="{anchor}"><a href="#{anchor}">{escape(text)}</a>{beside}</h{level}>'


def render_paragraph(text: str, name: str = "note") -> str:
    return f'<p class="{name}">{escape(text)}</p>'


def render_table(
    caption: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]], name: str = ""
) -> str:
    """A table that scrolls sideways by itself on a narrow screen. Numbers are right-aligned.

    Cells are HTML, numbers, or None for no number: escape texts first. `caption` names the table for those
    who cannot see it.
    """
    numeric = [
        all(not isinstance(cell, str) for cell in column) for column in zip(*rows, strict=True)
    ]
    classes = [' class="number"' if number else "" for number in numeric]
    names = "".join(
        f'<th scope="col"{name}>{head}</th>'
        for head, name in zip_longest(heads, classes, fillvalue="")
    )
    body = "".join(f"<tr>{''.join(map(render_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0">'
        f'<table class="{name}"><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def render_cell(cell: Cell) -> str:
    """Integers unchanged, means with two decimals, a dash for no number."""
    if isinstance(cell, str):
        return f"<td>{cell}</td>"
    if isinstance(cell, Count):
        return f'<td class="number"><a href="{escape(cell.href)}">{cell.number:,}</a></td>'
    words = "-" if cell is None else f"{cell:.2f}" if isinstance(cell, float) else f"{cell:,}"
    return f'<td class="number">{words}</td>'


def render_untrusted(text: str, name: str = "") -> str:
    """An untrusted text: shortened, escaped, and isolated from the text around it."""
    return f'<bdi class="{name}">{escape(shorten_text(text))}</bdi>'


def shorten_text(text: str, limit: int = MAX_TEXT) -> str:
    """The text on one line of at most `limit` characters; control characters become U+FFFD."""
    line = " ".join(text.split())
    line = line if len(line) <= limit else f"{line[: limit - 1]}…"
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in line)


def make_anchor(*words: str) -> str:
    """An anchor of these words: lower-case letters, digits and hyphens."""
    return "-".join(filter(None, (re.sub(r"[^a-z0-9]+", "-", w.lower()).strip("-") for w in words)))
