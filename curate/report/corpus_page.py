"""The report of a corpus. The same corpus gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stylear.curate.corpus.layout import REPORT
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.storage import write_text
from stylear.curate.filter import read_diversity
from stylear.curate.report.diversity import diversity_section
from stylear.curate.report.explorer import write_explorer
from stylear.curate.report.facts import Facts, read_facts
from stylear.curate.report.files import files_section, recipe_section
from stylear.curate.report.gallery import raw_section, styles_section
from stylear.curate.report.licences import licences_section
from stylear.curate.report.links import PairLinks
from stylear.curate.report.overview import funnel_section, render_totals
from stylear.curate.report.page import Section, render_page
from stylear.curate.report.preferences import preferences_section
from stylear.curate.report.scores import scores_section
from stylear.curate.report.versions import versions_section


def write_report(corpus: Path) -> Path:
    """Write `report/`: index.html, and pairs.html with its data; returns the path of the first."""
    path = corpus / REPORT / "index.html"
    facts = read_facts(corpus)
    write_explorer(facts, path.parent)
    title = f"Corpus {facts.recipe.name}"
    write_text(
        path,
        render_page(
            title, render_totals(facts, PairLinks()), corpus_sections(facts, "..", PairLinks())
        ),
    )
    return path


def corpus_sections(facts: Facts, corpus_url: str, links: PairLinks) -> Sequence[Section]:
    """All sections that are not empty, from the funnel to the recipe."""
    reader = PairReader(facts.corpus)
    sections = [
        funnel_section(facts, links),
        scores_section(facts),
        diversity_section(read_diversity(facts.corpus)),
        raw_section(facts, reader, links),
        styles_section(facts, reader, links),
        preferences_section(facts),
        licences_section(facts, links),
        versions_section(facts),
        files_section(facts, corpus_url),
        recipe_section(facts),
    ]
    return [section for section in sections if section is not None]
