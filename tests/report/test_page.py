"""The page as a document: whole in itself, strict, with anchors, alternative texts and readable colours."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from pathlib import Path

import pytest
from builders.html_page import Page

from stylear.curate.report import write_report
from stylear.curate.report.page import CSS, Section, render_page, render_table, shorten_text


@pytest.fixture(scope="module")
def text(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    corpus = shutil.copytree(finished, tmp_path_factory.mktemp("page") / "corpus")
    return write_report(Path(corpus)).read_text("utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


# --- whole in itself --------------------------------------------------------------------------


def test_the_page_loads_nothing(text: str, page: Page) -> None:
    sources = [
        v
        for _, attributes in page.tags
        for name, v in attributes.items()
        if name in ("src", "srcset")
    ]
    assert len(sources) > 24
    assert all(str(source).startswith("data:image/webp;base64,") for source in sources)
    assert re.findall(r"https?://|url\(|@import", text) == []
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base"}


def test_the_policy_allows_this_style_sheet_and_inline_images_only(page: Page) -> None:
    policies = [a["content"] for _, a in page.tags if a.get("http-equiv") is not None]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policies == [
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    ]
    before = [tag for tag, _ in page.tags[: [tag for tag, _ in page.tags].index("style")]]
    assert before == ["html", "head", "meta", "meta", "meta", "title"]
    assert not {name for _, attributes in page.tags for name in attributes if name == "style"}


def test_the_same_corpus_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    first = write_report(corpus).read_bytes()
    assert write_report(corpus).read_bytes() == first
    moved = Path(shutil.move(corpus, tmp_path / "elsewhere"))
    assert write_report(moved).read_bytes() == first


# --- headings, links, alternative texts -------------------------------------------------------


def test_there_is_one_h1_and_every_other_heading_has_an_anchor_of_its_own(page: Page) -> None:
    first, *others = page.headings
    assert (first[0], first[2]) == ("h1", "Corpus small")
    anchors = [anchor for _, anchor, _ in others]
    assert [name for tag, _, name in others if tag == "h2"] == [
        "Funnel", "Scores", "Diversity", "Raw pairs", "Styles", "Preference pairs",
        "Licences and opt-outs", "Versions", "Files", "Recipe",
    ]  # fmt: skip
    assert [name for tag, _, name in others if tag == "h3"] == ["cold", "plain", "warm"]
    assert all(re.fullmatch("[a-z0-9-]+", anchor) for anchor in anchors)
    assert len(set(anchors)) == len(anchors)


def test_every_link_inside_the_page_leads_somewhere(page: Page) -> None:
    ids = [str(attributes["id"]) for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [link for link in page.attributes("a", "href") if link.startswith("#")]
    assert links[0] == "#content"  # the skip link comes first
    assert set(links) <= {f"#{anchor}" for anchor in ids}
    sections = [f"#{anchor}" for tag, anchor, _ in page.headings if tag == "h2"]
    assert links[1 : 1 + len(sections)] == sections


def test_links_to_files_lead_from_the_report_into_the_corpus(finished: Path, page: Page) -> None:
    links = [link for link in page.attributes("a", "href") if not link.startswith("#")]
    assert "../train/00000.tar" in links
    files = {link for link in links if link.startswith("../")}
    assert all((finished / "report" / link).resolve().is_file() for link in files)
    assert {link.partition("#")[0] for link in links} - files == {"pairs.html"}


def test_every_picture_and_chart_says_what_it_shows(page: Page) -> None:
    alts = page.attributes("img", "alt")
    assert len(alts) == len([tag for tag, _ in page.tags if tag == "img"])
    assert all(alts)
    charts = [
        attributes
        for tag, attributes in page.tags
        if tag == "svg" and attributes.get("role") == "img"
    ]
    hidden = [
        attributes
        for tag, attributes in page.tags
        if tag == "svg" and attributes.get("aria-hidden")
    ]
    assert len(charts) == 1
    label = str(charts[0]["aria-label"])
    assert label.startswith("texture, 24 pairs: 12 kept and 12 dropped, from ")
    assert len(charts) + len(hidden) == len([tag for tag, _ in page.tags if tag == "svg"])


# --- colours ----------------------------------------------------------------------------------

TEXT_COLOURS = ("ink", "soft", "link", "kept", "dropped", "reference", "gold")
DRAWN_COLOURS = ("kept-fill", "dropped-fill")
BACKGROUNDS = ("page", "card")


def palettes() -> dict[str, dict[str, str]]:
    """The colours of the light and of the dark page."""
    blocks = re.findall(r":root \{(.*?)\}", CSS.read_text("utf-8"), re.DOTALL)
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block)) for block in blocks)
    return {"light": light, "dark": dark}


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_text_colour_has_a_contrast_of_at_least_4_5(mode: str) -> None:
    palette = palettes()[mode]
    assert set(palette) == {*TEXT_COLOURS, *DRAWN_COLOURS, *BACKGROUNDS, "edge"}
    for background in BACKGROUNDS:
        for name in TEXT_COLOURS:
            assert contrast(palette[name], palette[background]) >= 4.5, (name, background)
        for name in DRAWN_COLOURS:  # bars: what is no text needs 3
            assert contrast(palette[name], palette[background]) >= 3, (name, background)


def test_no_rule_brings_a_colour_of_its_own_or_fades_a_picture() -> None:
    css = re.sub(r":root \{.*?\}", "", CSS.read_text("utf-8"), flags=re.DOTALL)
    assert re.findall(r"#[0-9a-f]{3,8}\b|rgba?\(|hsla?\(|opacity|filter:", css) == []
    used = set(re.findall(r"[^-]color: (?:var\(--([a-z-]+)\)|inherit)", css)) - {""}
    assert used <= set(TEXT_COLOURS)
    assert set(re.findall(r"background: var\(--([a-z-]+)\)", css)) == set(BACKGROUNDS)
    assert re.findall(r"svg text \{[^}]*fill: var\(--([a-z-]+)\)", css) == ["soft"]


# --- pieces -----------------------------------------------------------------------------------


def test_numbers_of_a_table_stand_to_the_right_of_their_column() -> None:
    html = render_table("a < b", ["name", "many"], [["x", 1234], ["y", 0.5], ["z", None]])
    assert 'aria-label="a &lt; b"' in html
    assert '<th scope="col">name</th><th scope="col" class="number">many</th>' in html
    assert re.findall(r'<td class="number">(.*?)</td>', html) == ["1,234", "0.50", "-"]


def test_a_long_text_is_shortened_and_control_characters_are_replaced() -> None:
    assert shorten_text("a  b\n c") == "a b c"
    assert shorten_text("x" * 161) == "x" * 159 + "…"
    assert shorten_text("a\x00b\x1bc") == "a\ufffdb\ufffdc"
    assert shorten_text("👩‍🎨") == "👩‍🎨"


def test_titles_are_escaped() -> None:
    page = render_page("<i>", "", [Section("s", "<b>", "")])
    assert Page(page).headings == [("h1", "", "<i>"), ("h2", "s", "<b>")]
