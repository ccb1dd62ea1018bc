"""The report of a corpus. The same corpus gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stylear.curate.corpus.layout import REPORT
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.storage import write_text
from stylear.curate.filter import read_diversity
from stylear.curate.report.diversity import diversity_section
from stylear.curate.report.facts import Facts, read_facts
from stylear.curate.report.files import files_section, recipe_section
from stylear.curate.report.gallery import raw_section, styles_section
from stylear.curate.report.overview import funnel_section, render_totals
from stylear.curate.report.page import Section, render_page
from stylear.curate.report.preferences import preferences_section
from stylear.curate.report.scores import scores_section


def write_report(corpus: Path) -> Path:
    """Write `report/index.html`; its path."""
    path = corpus / REPORT / "index.html"
    facts = read_facts(corpus)
    title = f"Corpus {facts.recipe.name}"
    write_text(path, render_page(title, render_totals(facts), corpus_sections(facts, "..")))
    return path


def corpus_sections(facts: Facts, corpus_url: str) -> Sequence[Section]:
    """Funnel, scores, diversity, pictures, preference pairs, files, recipe; without those that are empty."""
    reader = PairReader(facts.corpus)
    sections = [
        funnel_section(facts),
        scores_section(facts),
        diversity_section(read_diversity(facts.corpus)),
        raw_section(facts, reader),
        styles_section(facts, reader),
        preferences_section(facts),
        files_section(facts, corpus_url),
        recipe_section(facts),
    ]
    return [section for section in sections if section is not None]
