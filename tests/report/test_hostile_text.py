"""Captions and reasons are text on the page, whatever they hold."""

from __future__ import annotations

import html
from pathlib import Path

import pyarrow as pa
import pytest
from builders.finished_corpus import finish
from builders.html_page import Page

from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.report import write_report

CAPTIONS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title><svg onload='x'>",
    "Dropped: not a reason",
]
REASON = """it's "<b>bold</b>" & more"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished corpus with captions that would like to be markup, and such a reason."""
    root = tmp_path_factory.mktemp("hostile")
    corpus = finish(root, CAPTIONS * 3, filter={"best_of": None, "duplicates": {"exact": False}})
    rows = read_table(corpus / "verdicts.parquet")
    values = rows.to_pylist()
    last = [row for row in values if row["group"] is not None][-1]
    last.update(kept=False, stage="filter", reason=REASON)
    write_table(corpus / "verdicts.parquet", pa.Table.from_pylist(values, schema=rows.schema))
    return corpus


def test_captions_and_reasons_are_text(corpus: Path) -> None:
    text = write_report(corpus).read_text("utf-8")
    page = Page(text)
    assert {sample.caption for sample in page.samples} >= set(CAPTIONS)
    assert f"Dropped: {REASON}" in {sample.verdict for sample in page.samples}
    assert "<script" not in text
    assert html.escape(CAPTIONS[0]) in text
    attributes = {name for _, attrs in page.tags for name in attrs}
    assert not {name for name in attributes if name.startswith("on")}
    assert "b" not in {tag for tag, _ in page.tags}


def test_an_alternative_text_holds_the_caption_as_text(corpus: Path) -> None:
    alts = Page(write_report(corpus).read_text("utf-8")).attributes("img", "alt")
    assert f"Raw picture: {CAPTIONS[1]}" in alts


def test_a_caption_cannot_pass_for_a_verdict(corpus: Path) -> None:
    samples = Page(write_report(corpus).read_text("utf-8")).samples
    verdicts = {sample.verdict for sample in samples if sample.caption == CAPTIONS[3]}
    assert "Dropped: not a reason" not in verdicts
    assert "Kept" in verdicts


def test_a_long_caption_is_shortened_before_it_is_escaped(tmp_path: Path) -> None:
    corpus = finish(tmp_path, ["<" * 500], synthesize={"backend": "statistics", "candidates": 1},
                    mix={"val_fraction": 0})  # fmt: skip
    page = Page(write_report(corpus).read_text("utf-8"))
    assert {sample.caption for sample in page.samples if sample.name == "kept"} == {"<" * 159 + "…"}
