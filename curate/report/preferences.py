"""Preference pairs: the style reference, the chosen and the rejected picture side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from stylear.curate.corpus.parquet import count_rows
from stylear.curate.corpus.shards import shard_paths, tar_samples
from stylear.curate.filter.ranking import choose_ranking_scores
from stylear.curate.pairs.preferences import FOLDER
from stylear.curate.report.facts import Facts
from stylear.curate.report.page import Section, render_paragraph, render_untrusted
from stylear.curate.report.pictures import render_sample, render_thumbnail

SHOWN = 8


def preferences_section(facts: Facts) -> Section | None:
    """Some preference pairs; None where there are none."""
    samples = list(islice(read_samples(facts.corpus), SHOWN))
    if not samples:
        return None
    total = count_rows(facts.corpus / FOLDER)
    names = [name for name in choose_ranking_scores(facts.recipe) if name is not None]
    score = names[0] if names else "not known"
    if len(set(names)) > 1:
        score = f"the harmonic mean of {' and '.join(names)}"
    note = (
        "Two candidates for one prompt and one style reference, for DPO. The chosen one has the higher"
        f" score, by at least {facts.recipe.pairs.margin:g} (pairs.margin), or is preferred by people."
        f" The score is {score}."
    )
    cards = "".join(render_preference(facts, sample) for sample in samples)
    count = f'<p class="count">{len(samples):,} of {total:,} preference pairs</p>'
    body = f'{render_paragraph(note)}{count}<div class="preferences">{cards}</div>'
    return Section("preferences", "Preference pairs", body)


def read_samples(corpus: Path) -> Iterator[dict[str, bytes]]:
    """The samples of preferences/ by member ending."""
    for tar in shard_paths(corpus / FOLDER):
        for _, sample in tar_samples(tar):
            yield sample


def render_preference(facts: Facts, sample: dict[str, bytes]) -> str:
    """One preference pair with its prompt, its reference and its margin."""
    record = json.loads(sample["json"])
    prompt, reference = str(record["caption"]), str(record["reference"])
    known = facts.references.get(reference)
    pictures = render_sample(
        render_thumbnail(known.image if known else b"", f"Style reference {reference}"),
        "Style reference",
        "reference",
        reference,
    )
    for side, name in (("chosen", "kept"), ("rejected", "dropped")):
        image = next(data for member, data in sample.items() if member.startswith(f"{side}."))
        score = record[f"{side}_score"]
        facts_shown = [] if score is None else [f"score {float(score):.3f}"]
        title = side.capitalize()
        pictures += render_sample(
            render_thumbnail(image, f"{title}: {prompt}"), title, name, "", facts_shown
        )
    known_margin = record["margin"]
    margin = "by people" if known_margin is None else f"margin {float(known_margin):.3f}"
    return (
        f'<article class="preference"><p>Prompt: {render_untrusted(prompt)} <small>{margin}</small></p>'
        f'<div class="sides">{pictures}</div></article>'
    )
