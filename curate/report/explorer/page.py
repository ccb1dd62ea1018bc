"""The explorer's page: its scripts and style sheets, and a policy that allows these by their hashes.

The scripts may add scripts ('strict-dynamic'), which is how they load the chunks of data; a script that a
caption smuggled into the page would not run. 'self' would not do: browsers disagree about what it means for
a page on a disk. Trusted Types forbid the page's own scripts to make HTML from text.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path

from stylear.curate.report.page import CSS

PAGE = "pairs.html"
FOLDER = Path(__file__).parent / "page"
SCRIPTS = (  # in this order; they share one scope
    "elements.js",
    "chunks.js",
    "corpus.js",
    "query.js",
    "card.js",
    "window.js",
    "pictures.js",
    "scatter.js",
    "duplicates.js",
    "history.js",
    "detail.js",
    "controls.js",
    "main.js",
)


def render_explorer(title: str) -> str:
    """The whole page."""
    css = CSS.read_text("utf-8") + (FOLDER / "explorer.css").read_text("utf-8")
    scripts = [(FOLDER / name).read_text("utf-8") for name in SCRIPTS]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{content_security_policy(css, scripts)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{css}</style></head><body>"
        '<a class="skip" href="#content">Skip to the pairs</a>'
        f'<header><p class="back"><a href="index.html">Report</a></p><h1>{escape(title)}</h1></header>'
        + (FOLDER / "body.html").read_text("utf-8")
        + "".join(f"<script>{script}</script>" for script in scripts)
        + "</body></html>\n"
    )


def content_security_policy(css: str, scripts: list[str]) -> str:
    """The policy that allows this style sheet, these scripts, what they load, and inline pictures."""
    allowed = " ".join(f"'{hash_source(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed} 'strict-dynamic'; style-src '{hash_source(css)}';"
        " img-src data:; base-uri 'none'; form-action 'none';"
        " require-trusted-types-for 'script'; trusted-types chunks"
    )


def hash_source(text: str) -> str:
    """A text as a source of a policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
