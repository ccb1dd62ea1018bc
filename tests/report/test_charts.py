"""Charts: bars and curves where the numbers are, limits as lines, and no word on a bar or a curve."""

from __future__ import annotations

import math
import re

import pytest

from stylear.curate.report.charts import Limit, histogram_svg, line_chart_svg

STEP = 13.0  # the plot without its margins, in 30 bins


def bars(svg: str) -> list[tuple[str, float, float, float]]:
    """(class, x, y, height) of every bar."""
    rects = re.findall(r'<rect class="(.*?)" x="(.*?)" y="(.*?)" width=".*?" height="(.*?)"/>', svg)
    return [(name, float(x), float(y), float(tall)) for name, x, y, tall in rects]


def words(svg: str) -> list[str]:
    return re.findall(r">([^<>]+)</text>", svg)


def test_a_histogram_stacks_kept_and_dropped() -> None:
    svg = histogram_svg("a < b", [0.0, 0.0, 1.0], [0.0])
    assert bars(svg) == [
        ("kept", 58.0, 54.0, 84.0),
        ("dropped", 58.0, 12.0, 42.0),
        ("kept", pytest.approx(58 + 29 * STEP, abs=0.05), 96.0, 42.0),
    ]
    assert "<figcaption>a &lt; b</figcaption>" in svg
    assert 'aria-label="a &lt; b: 3 kept and 1 dropped, from 0 to 1"' in svg
    assert words(svg) == ["3", "0", "0", "0.5", "1"]


def test_a_limit_is_a_line_at_its_value_with_its_label_above_the_bars() -> None:
    svg = histogram_svg("s", [0.0, 1.0], [], [Limit(0.75, "max 0.75"), Limit(0.25, "min 0.25")])
    lines = re.findall(r'<line class="limit" x1="(.*?)" y1="(.*?)" x2="(.*?)" y2="(.*?)"/>', svg)
    assert lines == [("155.5", "12.0", "155.5", "168"), ("350.5", "27.0", "350.5", "168")]
    assert words(svg)[:2] == ["min 0.25", "max 0.75"]
    tops = [float(y) for y, word in re.findall(r'y="([\d.]+)"[^>]*>(m[^<]*)</text>', svg)]
    assert max(tops) < min(y for _, _, y, _ in bars(svg))
    assert "from 0 to 1; min 0.25; max 0.75" in svg


def test_a_limit_beyond_every_score_is_still_in_the_drawing() -> None:
    svg = histogram_svg("s", [], [0.1, 0.2], [Limit(0.5, "min 0.5")])
    assert '<line class="limit" x1="448.0"' in svg
    assert words(svg)[-1] == "0.5"
    assert [x for _, x, _, _ in bars(svg)] == [58.0, pytest.approx(58 + 7 * STEP, abs=0.05)]


def test_a_histogram_of_one_value_or_of_none_is_drawn() -> None:
    assert len(bars(histogram_svg("one", [0.5, 0.5], []))) == 1
    assert "no values" in histogram_svg("none", [], [])
    assert histogram_svg("n", [math.nan, 0.5], [math.inf]) == histogram_svg(
        "n (2 not a number)", [0.5], []
    )


def test_a_line_chart_goes_through_its_points() -> None:
    svg = line_chart_svg("loss", {"sft <1>": [(0, 4.0), (10, 2.0)], "none": []})
    assert 'points="58.0,12.0 448.0,138.0"' in svg
    assert words(svg) == ["4", "2", "0", "step", "10"]
    assert "no values" in line_chart_svg("loss", {})


def test_the_legend_of_a_line_chart_stands_below_the_drawing() -> None:
    svg = line_chart_svg("loss", {"sft <1>": [(0, 4.0), (10, 2.0)], "dpo": [(0, 1.0)]})
    drawing, _, legend = svg.partition("</svg>")
    assert "sft" not in re.sub(r'aria-label=".*?"', "", drawing)
    assert re.findall(r'<rect class="(.*?)"', legend) == ["series-1", "series-2"]
    assert re.findall(r"</svg>([^<]+)</li>", legend) == [
        "sft &lt;1&gt;, last value 2", "dpo, last value 1",
    ]  # fmt: skip


def test_a_line_chart_leaves_out_what_is_no_number() -> None:
    line = [(0, 4.0), (5, math.nan), (10, 2.0)]
    assert line_chart_svg("loss", {"a": line}) == line_chart_svg("loss", {"a": [line[0], line[2]]})
    assert "no values" in line_chart_svg("loss", {"a": [(0, math.nan)]})
