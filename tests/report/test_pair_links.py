"""A number of the report leads to exactly the pairs that it counts."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path

import pytest
from builders.explorer_report import Explorer
from builders.finished_corpus import CAPTIONS, finished_settings, make_sources
from builders.html_page import Page
from builders.pictures_folder import make_recipe

from stylear.curate import run as runner
from stylear.curate.corpus.layout import STAGES
from stylear.curate.report import write_report
from stylear.curate.report.links import PairLinks


@pytest.fixture(scope="module")
def report(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = shutil.copytree(finished, tmp_path_factory.mktemp("links") / "corpus")
    return write_report(Path(corpus)).parent


def counted_links(text: str) -> list[tuple[str, int]]:
    """(link, the number in its words) of every link to pairs."""
    links = re.findall(r'<a href="(pairs\.html[^"]*)">(.*?)</a>', text)
    numbers = [(unescape(link), re.findall(r"[\d,]+(?= pairs|$)", words)) for link, words in links]
    return [(link, int(n[-1].replace(",", ""))) for link, n in numbers if n]


def test_every_number_leads_to_as_many_pairs(report: Path) -> None:
    explorer = Explorer(report)
    links = counted_links((report / "index.html").read_text("utf-8"))
    assert len(links) == 35
    assert {link: number for link, number in links if len(explorer.select(link)) != number} == {}
    assert ("pairs.html", 41) in links
    assert ("pairs.html#outcome=dropped%3Afetch&reason=not-an-image", 1) in links


def test_a_reason_leads_to_the_pairs_that_were_dropped_for_it(report: Path) -> None:
    explorer = Explorer(report)
    rows = explorer.select("pairs.html#outcome=dropped%3Afilter&reason=not-best")
    ends = [history["outcome"] for history in explorer.histories()]
    assert [ends[row] for row in rows] == ["dropped by filter: not-best"] * 12


def test_each_style_has_a_funnel(report: Path) -> None:
    page = Page((report / "index.html").read_text("utf-8"))
    rows = page.table("style")
    assert [row[0] for row in rows] == ["cold", "plain", "warm"]
    numbers = [[int(cell) for cell in row[1:6]] for row in rows]
    assert [sum(column) for column in zip(*numbers, strict=True)][:3] == [24, 24, 12]
    for row, (generated, drawn, kept, train, val) in zip(rows, numbers, strict=True):
        assert generated == drawn >= kept >= train + val
        assert row[6].startswith(f"not-best {generated - kept}")


def test_hostile_names_are_escaped_in_links() -> None:
    link = PairLinks("corpus/report/").link("x", style='"><b>&', reason="a b")
    assert link == (
        '<a href="corpus/report/pairs.html#style=%22%3E%3Cb%3E%26&amp;reason=a+b">x</a>'
    )


def test_licences_are_counted_in_the_words_of_their_sources(tmp_path: Path) -> None:
    make_sources(tmp_path, CAPTIONS[:4])
    lines = (tmp_path / "photos" / "captions.csv").read_text("utf-8").splitlines()
    stated = ["licence", "CC0-1.0", "CC0-1.0", "<b>", "", "CC0-1.0"]
    text = "".join(f"{line},{licence}\n" for line, licence in zip(lines, stated, strict=True))
    (tmp_path / "photos" / "captions.csv").write_text(text, "utf-8")
    values = finished_settings(references=[], score=[], filter={})
    del values["synthesize"]
    runner.run_stages(STAGES, make_recipe(tmp_path, values), tmp_path / "corpus", workers=1)
    report = write_report(tmp_path / "corpus")
    text = report.read_text("utf-8")
    assert Page(text).table("licence") == [
        ["CC0-1.0", "3", "2"], ["(not stated)", "1", "1"], ["<b>", "1", "1"],
    ]  # fmt: skip
    assert "Nothing was downloaded by URL, so no server was asked." in Page(text).texts
    explorer = Explorer(report.parent)
    links = [one for one in counted_links(text) if "licence=" in one[0]]
    assert len(links) == 6
    assert {link: number for link, number in links if len(explorer.select(link)) != number} == {}


def test_opt_outs_and_forgotten_pairs_are_counted(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylear.curate.report import licences
    from stylear.curate.report.facts import read_facts

    facts = read_facts(finished)
    body = Page(licences.render_opt_outs(facts, PairLinks()))
    assert "No pair was left out for an opt-out or a request." in body.texts
    dropped = {"fetch": {"dropped": {"opted-out": 3, "timeout": 2, "forgotten": 1}}}
    monkeypatch.setattr(licences, "stage_counts", lambda ledger: dropped)
    text = licences.render_opt_outs(facts, PairLinks())
    assert [row[:2] for row in Page(text).table("left out because")] == [
        ["opted-out", "3"], ["forgotten", "1"],
    ]  # fmt: skip
    assert 'href="pairs.html#outcome=dropped%3Afetch&amp;reason=opted-out"' in text


def test_versions_and_models_are_those_of_the_manifest(report: Path) -> None:
    versions = json.loads((report.parent / "manifest.json").read_text())["versions"]
    page = Page((report / "index.html").read_text("utf-8"))
    assert page.table("package") == [[name, version] for name, version in versions.items()]
    assert page.table("used for") == [
        ["synthesize", "statistics", "-", "-"],
        ["score texture", "texture", "-", "-"],
    ]
