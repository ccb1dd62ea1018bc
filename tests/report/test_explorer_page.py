"""The explorer's page as a document: strict policy, no foreign host, no HTML made from text."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from builders.explorer_report import Explorer, read_json
from builders.finished_corpus import finish
from builders.html_page import Page
from test_page import BACKGROUNDS, TEXT_COLOURS

from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.report import write_report
from stylear.curate.report.explorer.chunks import write_json_chunk
from stylear.curate.report.explorer.page import FOLDER, SCRIPTS, render_explorer

HOSTILE = [
    "</script><script>alert(1)</script>",
    '");alert(1);//',
    "a\u2028b\u2029c",
    "<!--<img src=x onerror=alert(1)>",
]
REASON = '</script><img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def text() -> str:
    return render_explorer("Pairs of corpus small")


def digest(words: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(words.encode()).digest()).decode()}'"


def test_the_policy_allows_these_scripts_by_hash_what_they_load_and_inline_pictures(
    text: str,
) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert scripts == [(FOLDER / name).read_text("utf-8") for name in SCRIPTS]
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy == (
        f"default-src 'none'; script-src {' '.join(map(digest, scripts))} 'strict-dynamic';"
        f" style-src {digest(style)}; img-src data:; base-uri 'none'; form-action 'none';"
        " require-trusted-types-for 'script'; trusted-types chunks"
    )
    assert text.index("Content-Security-Policy") < text.index("<style>") < text.index("<script>")


def test_every_file_of_the_page_is_used() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*SCRIPTS, "body.html", "explorer.css"}
    assert len(set(SCRIPTS)) == len(SCRIPTS)


def test_the_page_names_no_host_and_has_no_inline_handler_or_style(text: str) -> None:
    assert re.findall(r"https?:|//[a-z]|url\(|@import|javascript:", text) == []
    page = Page(text)
    names = {name for _, attributes in page.tags for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("style", "src")}
    assert page.attributes("a", "href") == ["#content", "index.html", "index.html"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_html_of_text_or_asks_a_server(name: str) -> None:
    script = (FOLDER / name).read_text("utf-8")
    assert script.startswith('"use strict";\n')
    assert len(script.splitlines()) <= 350
    html = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write"
    assert re.findall(html + r"|\beval\b|new Function|fetch\(|XMLHttp|import\(", script) == []


def test_every_field_has_a_name_for_those_who_cannot_see_it(text: str) -> None:
    body = (FOLDER / "body.html").read_text("utf-8")
    fields = re.findall(r"<(?:select|input)[^>]*>", body)
    labels = re.findall(r"<label[^>]*>(.*?)</label>", body, re.DOTALL)
    assert len(fields) == len([1 for label in labels if re.search("<(select|input)", label)]) == 11
    ids = re.findall(r' id="([^"]*)"', body)
    assert len(set(ids)) == len(ids)
    used = {
        i for name in SCRIPTS for i in re.findall(r'find\("([^"]+)"\)', (FOLDER / name).read_text())
    }
    assert used <= set(ids)


def test_colours_are_those_of_the_report() -> None:
    css = (FOLDER / "explorer.css").read_text("utf-8")
    assert re.findall(r"#[0-9a-f]{3,8}\b|rgba?\(|hsla?\(|opacity|filter:", css) == []
    assert {*re.findall(r"[^-]color: var\(--([a-z-]+)\)", css)} <= {*TEXT_COLOURS}
    assert {*re.findall(r"background: var\(--([a-z-]+)\)", css)} == {*BACKGROUNDS}


def test_hostile_captions_and_reasons_cannot_leave_their_chunk(tmp_path: Path) -> None:
    corpus = finish(tmp_path, HOSTILE * 4, filter={"best_of": None, "duplicates": {"exact": False}})
    table = read_table(corpus / "verdicts.parquet")
    rows = table.to_pylist()
    rows[-1].update(kept=False, stage="filter", reason=REASON)
    write_table(corpus / "verdicts.parquet", pa.Table.from_pylist(rows, schema=table.schema))
    write_report(corpus)
    report = corpus / "report"
    for path in (report / "data").iterdir():
        assert re.fullmatch(r'addChunk\("[a-z0-9-]+",["\[A-Za-z0-9+/=,\]]*\);\n', path.read_text())
    explorer = Explorer(report)
    assert {*explorer.texts("caption")} >= {HOSTILE[0], HOSTILE[1], HOSTILE[3]}
    assert REASON in {outcome["reason"] for outcome in explorer.corpus["outcomes"]}
    page = (report / "pairs.html").read_text()
    assert not [words for words in (*HOSTILE, REASON) if words in page]
    assert page == render_explorer("Pairs of corpus small")


def test_any_text_comes_out_of_its_chunk_as_it_went_in(tmp_path: Path) -> None:
    texts = [*HOSTILE, REASON, "\\", "\x00", "\ud800", "👩‍🎨"]
    write_json_chunk(tmp_path, "texts-0", texts)
    assert (tmp_path / "data" / "texts-0.js").read_text().count("\n") == 1
    assert read_json(tmp_path, "texts-0") == texts


def test_a_title_is_escaped() -> None:
    assert Page(render_explorer("<b>")).headings[0] == ("h1", "", "<b>")


def test_the_same_corpus_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    drawn = []
    for number in range(2):
        corpus = Path(shutil.copytree(finished, tmp_path / str(number)))
        write_report(corpus)
        files = (path for path in (corpus / "report").rglob("*") if path.is_file())
        drawn.append({path.name: path.read_bytes() for path in files})
    assert drawn[0] == drawn[1]
