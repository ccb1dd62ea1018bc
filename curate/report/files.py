"""The end of the report: the files to train on with their hashes, and how to verify and rebuild them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import quote

from stylear.curate.corpus.layout import MANIFEST, RECIPE
from stylear.curate.report.facts import Facts
from stylear.curate.report.page import Cell, Section, render_paragraph, render_table

FOLDERS = ("train/", "val/", "preferences/")


def files_section(facts: Facts, corpus_url: str) -> Section:
    """The files that a trainer reads, with size and hash; `corpus_url` leads from the page to the corpus."""
    files: Mapping[str, Any] = facts.manifest.get("files", {})
    shown = {name: info for name, info in sorted(files.items()) if name.startswith(FOLDERS)}
    rows: list[list[Cell]] = [
        [
            f'<a href="{escape(quote(f"{corpus_url}/{name}"))}">{escape(name)}</a>',
            int(info["bytes"]),
            f"<code>{escape(str(info['sha256']))}</code>",
        ]
        for name, info in shown.items()
    ]
    note = (
        f"{len(shown):,} of the {len(files):,} files that {MANIFEST} lists with size and sha256: those that"
        " training reads."
    )
    body = render_paragraph(note) + render_table(
        "Files to train on", ["file", "bytes", "sha256"], rows, "files"
    )
    return Section("files", "Files", body + render_verification(facts))


def render_verification(facts: Facts) -> str:
    """How to prove that the corpus is the one of this page; nothing without a manifest."""
    path = facts.corpus / MANIFEST
    if not path.is_file():
        return render_paragraph(
            f"There is no {MANIFEST}: the corpus is not finished, and nothing vouches for its files.",
            "warning",
        )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return (
        f"<p>Verify them: <code>stylear curate audit CORPUS</code> hashes every file again and follows every"
        f" pair. This page was drawn from the {MANIFEST} with sha256 <code>{sha256}</code>.</p>"
    )


def recipe_section(facts: Facts) -> Section:
    """The recipe and how to build the same bytes again."""
    recipe = (facts.corpus / RECIPE).read_text("utf-8")
    return Section(
        "recipe",
        "Recipe",
        "<p>The same recipe, sources and seed give the same bytes:"
        " <code>stylear curate run recipe.yaml --out CORPUS</code></p>"
        f'<pre tabindex="0" aria-label="The recipe as YAML">{escape(recipe)}</pre>',
    )
