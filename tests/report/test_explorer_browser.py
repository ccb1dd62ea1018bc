"""The explorer in a headless Chromium, opened from the disk: filters, keys, views, console, hostile text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from builders.browser import Browser, find_browser
from builders.explorer_report import Explorer
from builders.finished_corpus import CAPTIONS, finish

from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.report import write_report

HOSTILE = (
    "<img src=x onerror=\"document.title='run'\"></script><script>document.title='run'</script>"
)
READY = "document.documentElement.dataset.ready"
FOCUS = "Number(document.activeElement.dataset.row)"

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium is installed (apt-get install chromium)"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a corpus with a hostile caption, a percentile, and a pair marked as a duplicate."""
    rules = {
        "duplicates": {"exact": True},
        "thresholds": [{"score": "texture", "percentile": 20}],
        "best_of": None,
        "text_score": "texture",
        "style_score": "texture",
    }
    root = tmp_path_factory.mktemp("browser")
    corpus = finish(root, [HOSTILE, *CAPTIONS[1:]], filter=rules)
    table = read_table(corpus / "verdicts.parquet")
    rows = table.to_pylist()
    rows[5]["duplicate_of"] = rows[2]["key"]
    write_table(corpus / "verdicts.parquet", pa.Table.from_pylist(rows, schema=table.schema))
    return write_report(corpus).parent


@pytest.fixture(scope="module")
def explorer(report: Path) -> Explorer:
    return Explorer(report)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(str(find_browser()), tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Browser]:
    """The open page. Whatever a test does, the console stays clean and no other host is asked."""
    browser.problems.clear()
    browser.requested.clear()
    browser.open((report / "pairs.html").as_uri())
    browser.wait_for(READY)
    yield browser
    assert browser.problems == []
    folder = report.as_uri() + "/"
    allowed = (folder, "data:image/webp;base64,", "about:blank")
    assert [url for url in browser.requested if not url.startswith(allowed)] == []
    assert browser.evaluate("document.title") == "Pairs of corpus small"


def visit(page: Browser, report: Path, query: str) -> int:
    """Open the page with a query; the number of pairs that it finds."""
    page.open(f"{(report / 'pairs.html').as_uri()}{query}")
    return int(page.wait_for(READY))


def test_every_pair_is_shown_with_its_picture_and_a_hostile_caption_is_text(
    page: Browser, explorer: Explorer
) -> None:
    assert page.evaluate(READY) == "41"
    assert page.evaluate("find('count').textContent") == "41 of 41 pairs"
    page.wait_for("document.querySelectorAll('#pictures img').length > 10")
    first = page.evaluate("document.querySelector('[data-row=\"0\"] .caption').textContent")
    assert first == explorer.texts("caption")[0] == HOSTILE
    assert page.evaluate("document.querySelectorAll('#pictures script').length") == 0


@pytest.mark.parametrize("query", [
    "", "#outcome=dropped%3Afilter", "#outcome=in%3Afilter", "#outcome=kept%3Afetch", "#outcome=val",
    "#outcome=used", "#style=warm", "#style=cold&outcome=kept%3Afilter", "#source=folder+photos",
    "#outcome=dropped%3Afetch&reason=not-an-image", "#licence=%28not+stated%29", "#outcome=in%3Asynthesize",
])  # fmt: skip
def test_a_link_of_the_report_selects_its_pairs(
    page: Browser, report: Path, explorer: Explorer, query: str
) -> None:
    rows = explorer.select(f"pairs.html{query}")
    assert rows
    assert visit(page, report, query) == len(rows)


def test_text_and_score_ranges_select_and_a_score_sorts(
    page: Browser, report: Path, explorer: Explorer
) -> None:
    texts = [*zip(explorer.texts("caption"), explorer.texts("source"), strict=True)]
    matching = [c for c, s in texts if "number 1" in f"{c} {s}".lower() and "p01" in f"{c} {s}"]
    assert visit(page, report, "#text=NUMBER+1+p01") == len(matching) == 6
    scores = explorer.scores["texture"].tolist()
    assert visit(page, report, "#min.texture=0.56&sort=texture") == sum(s >= 0.56 for s in scores)
    best = max((row for row, s in enumerate(scores) if s >= 0), key=lambda row: scores[row])
    assert (
        page.evaluate(
            "Number(document.querySelector('.item[aria-posinset=\"1\"] button').dataset.row)"
        )
        == best
    )


def test_keys_go_from_picture_to_picture_and_into_a_pair_and_back(
    page: Browser, explorer: Explorer
) -> None:
    page.evaluate("document.querySelector('[data-row=\"0\"]').focus()")
    page.press("ArrowRight")
    page.press("ArrowDown")
    columns = int(page.evaluate("Math.floor(find('pictures').clientWidth / CARD_WIDTH)"))
    assert page.evaluate(FOCUS) == 1 + columns
    page.press("End")
    assert page.evaluate(FOCUS) == 40
    page.press("Enter")
    page.wait_for("find('detail').open && find('detail-place').textContent === '41 of 41'")
    page.press("ArrowLeft")
    page.wait_for("find('detail-place').textContent === '40 of 41'")
    key = explorer.texts("key")[39]
    assert page.evaluate("location.hash") == f"#pair={key}"
    page.press("Escape")
    page.wait_for(f"!find('detail').open && {FOCUS} === 39")
    page.press("/", "/")
    assert page.evaluate("document.activeElement.id") == "f-text"


def test_a_pair_shows_its_history(page: Browser, report: Path, explorer: Explorer) -> None:
    history = next(h for h in explorer.histories() if "below-percentile" in h["outcome"])
    visit(page, report, f"#pair={history['key']}")
    page.wait_for("find('detail').open")
    detail = page.evaluate("find('detail').textContent")
    step = history["stages"][-1]
    for words in (history["key"], history["caption"], history["origin"]["reference_sha256"],
                  "filter.thresholds.0.percentile 20", str(step["value"]), history["content"]):  # fmt: skip
        assert words in detail
    parent = history["origin"]["parent"]
    page.evaluate(
        "[...document.querySelectorAll('#detail-history button.link')]"
        f".find((button) => button.textContent === '{parent}').click()"
    )
    page.wait_for(f"location.hash.includes('{parent}')")


def test_a_point_leads_to_its_pair(page: Browser, report: Path, explorer: Explorer) -> None:
    visit(page, report, "#view=scatter")
    page.wait_for("find('scatter').getAttribute('aria-label')")
    assert page.evaluate("find('scatter').getAttribute('aria-label')").startswith(
        "24 pairs by texture (across)"
    )
    page.evaluate("find('scatter').scrollIntoView({block: 'center'})")
    page.evaluate("find('scatter').focus()")
    page.press("End")
    marked = page.wait_for("document.querySelector('#scatter-preview [data-row]')?.dataset.row")
    scores = explorer.scores["texture"].tolist()
    best = max((row for row, s in enumerate(scores) if s >= 0), key=lambda row: scores[row])
    assert int(marked) == best
    page.press("Enter")
    page.wait_for("find('detail').open")
    assert page.evaluate("location.hash").endswith(f"pair={explorer.texts('key')[best]}")


def test_duplicates_stand_side_by_side(page: Browser, report: Path) -> None:
    visit(page, report, "#view=duplicates")
    page.wait_for("document.querySelector('#duplicates .group')")
    shown = page.evaluate(
        "[...document.querySelectorAll('#duplicates .group')].map((group) =>"
        " [...group.querySelectorAll('.card')].map((card) => Number(card.dataset.row)))"
    )
    assert shown == [[2, 5]]


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_scrolls_down_only(page: Browser, report: Path, dark: bool) -> None:
    for query in ("", "#view=scatter", "#view=duplicates"):
        page.open(f"{(report / 'pairs.html').as_uri()}{query}", 390, 844, dark=dark)
        page.wait_for(READY)
        wide = "document.documentElement.scrollWidth"
        assert page.evaluate(wide) == page.evaluate("window.innerWidth") == 390
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(19, 21, 24)" if dark else "rgb(255, 255, 255)")


def test_only_pictures_in_view_are_in_the_document(page: Browser, report: Path) -> None:
    page.open((report / "pairs.html").as_uri(), 390, 600)
    page.wait_for(READY)
    assert 4 <= page.evaluate("document.querySelectorAll('#pictures .item').length") <= 12


def test_a_missing_chunk_is_said(browser: Browser, report: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(report, tmp_path / "report"))
    (copy / "data" / "rows.js").unlink()
    browser.open((copy / "pairs.html").as_uri())
    browser.wait_for("!find('trouble').hidden")
    assert browser.evaluate("find('trouble').textContent").startswith(
        "data/rows.js is missing or damaged. Copy the whole folder of the report"
    )


def test_a_script_that_slipped_into_the_page_does_not_run(
    browser: Browser, report: Path, tmp_path: Path
) -> None:
    text = (report / "pairs.html").read_text("utf-8")
    evil = "<script>document.title = 'run'</script><script src='evil.js'></script>"
    evil += "<b onclick=\"document.title='run'\">b</b>"
    (tmp_path / "evil.js").write_text("document.title = 'run'")
    (tmp_path / "evil.html").write_text(text.replace("</body>", f"{evil}</body>"))
    browser.open((tmp_path / "evil.html").as_uri())
    browser.wait_for("document.querySelector('b')")
    browser.evaluate("document.querySelector('b').click()")
    assert browser.evaluate("document.title") == "Pairs of corpus small"
