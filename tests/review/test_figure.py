"""The figure of a user study: one bar for each model, with its interval, from the answers alone."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

import stylear.curate.cli
from stylear.curate.corpus.answers import Answer, Side, append_answer
from stylear.curate.review.figure import draw_win_rates, place
from stylear.curate.review.summary import Estimate

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [
    {"model": name, "comparisons": 12, "win_rate": rate}
    for name, rate in (
        ("ours", Estimate(0.75, 0.5, 0.9)),
        ("<b>theirs & a name that does not fit", Estimate(0.25, 0.1, 0.5)),
    )
]


def test_bars_and_intervals_are_as_long_as_the_numbers_say() -> None:
    svg = ElementTree.fromstring(draw_win_rates(ROWS, "Preferred by people"))
    bars = [element for element in svg.iter(f"{SVG}rect") if element.get("class") == "bar"]
    assert [float(bar.get("width", 0)) for bar in bars] == [
        pytest.approx(place(rate) - place(0), abs=0.06) for rate in (0.75, 0.25)
    ]
    whiskers = [
        (float(element.get("x1", 0)), float(element.get("x2", 0)))
        for element in svg.iter(f"{SVG}line")
        if element.get("class") == "whisker" and element.get("x1") != element.get("x2")
    ]
    assert whiskers == [
        (pytest.approx(place(low), abs=0.06), pytest.approx(place(high), abs=0.06))
        for low, high in ((0.5, 0.9), (0.1, 0.5))
    ]


def test_names_are_text_and_the_figure_says_itself_in_words() -> None:
    svg = ElementTree.fromstring(draw_win_rates(ROWS, "Study"))
    words = [element.text for element in svg.iter(f"{SVG}text")]
    assert "ours" in words
    assert "<b>theirs & a name that…" in words
    assert {"75% of 12", "25% of 12"} <= set(words)
    assert svg.get("aria-label") == (
        "Study: ours 0.750 [0.500, 0.900]; <b>theirs & a name that does not fit 0.250 [0.100, 0.500]"
    )


def test_the_command_draws_the_figure_of_any_reviewed_folder(tmp_path: Path) -> None:
    call = ["review", "--from", str(tmp_path), "--summary", "--figure", str(tmp_path / "rates.svg")]
    nothing = CliRunner().invoke(stylear.curate.cli.app, call)
    assert "expected comparisons of" in str(nothing.exception)
    for number in range(6):
        sides = Side("a", f"a/{number}.png"), Side("b", f"b/{number}.png")
        choice = Answer("choice", f"t{number}", "ann", "left", f"g{number}", sides)
        append_answer(tmp_path, choice)
    done = CliRunner().invoke(stylear.curate.cli.app, call)
    assert done.exit_code == 0, done.output
    svg = ElementTree.parse(tmp_path / "rates.svg").getroot()
    assert "100% of 6" in [element.text for element in svg.iter(f"{SVG}text")]


def test_a_figure_is_drawn_of_a_summary_only(tmp_path: Path) -> None:
    call = ["review", "--from", str(tmp_path), "--figure", "x.svg"]
    done = CliRunner().invoke(stylear.curate.cli.app, call)
    assert "--figure: expected together with --summary" in str(done.exception)
