"""The page of `stylear demo`: what the models draw, how they were measured, how the corpus was built."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from stylear.curate.report.page import Section
    from stylear.evaluation.evaluate import Evaluation
    from stylear.sampling.references import Reference

TITLE = "StyleAR toolkit: the demo"
MODELS = {
    "base": "mini-ar: draws from the prompt alone; it cannot see the reference",
    "shipped": "mini-stylear: style tokens, trained on 20 other styles",
    "after SFT": "mini-stylear after SFT (LoRA) on the corpus below",
    "after DPO": "the same after DPO on pairs of its own pictures",
}
SHOWN_REFERENCES = 8
METRICS_NOTE = (
    "Mean and 95% bootstrap interval over (reference, prompt) pairs. clip_t: similarity of picture and"
    " prompt; recall: share of pictures whose own prompt is the nearest of all prompts; clip_i: similarity of"
    " picture and reference; these by mini-clip, which also filtered the corpus and ranked the preference"
    " pairs; texture: similarity of texture statistics to the reference, measured without"
    " weights, a judge that took no part in filtering or training; harmonic: mean of clip_t and texture;"
    " leakage: how much of the reference's own content shows."
)
WINS_NOTE = (
    "How often the picture of the one model scores higher than that of the other for the same reference,"
    " prompt and seed; 0.5 is chance."
)
COMPARED = (("after SFT", "shipped"), ("after DPO", "after SFT"))
CURVES = (
    ("sft", [["loss", "validation_loss"]]),
    ("dpo", [["loss"], ["margin", "accuracy"], ["chosen_log_prob", "rejected_log_prob"]]),
)


def write_page(
    out: Path,
    evaluation: Evaluation,
    parts: Sequence[tuple[str, Evaluation]],
    seconds: Mapping[str, float],
) -> Path:
    """Write `index.html` into the demo's folder; its path. `parts` are the tables to show, with titles."""
    from stylear.curate.report.corpus_page import corpus_sections
    from stylear.curate.report.facts import read_facts
    from stylear.curate.report.links import PairLinks
    from stylear.curate.report.overview import render_totals
    from stylear.curate.report.page import Section, render_page, render_paragraph

    facts = read_facts(out / "corpus")
    links = PairLinks("corpus/report/")
    introduction = render_paragraph(
        "A house has three styles of its own that no model has seen. A corpus of them was curated from a few"
        " references and audited; a small model was fine-tuned on it (SFT), then on preference pairs of its"
        " own pictures (DPO). Here it draws prompts after each step. Everything ran offline on this machine,"
        " on the embedded mini family.",
        "introduction",
    )
    sections = [
        pictures_section(evaluation),
        metrics_section(parts),
        training_section(out),
        time_section(seconds),
        Section("corpus", f"Corpus {facts.recipe.name}", render_totals(facts, links)),
        *corpus_sections(facts, "corpus", links),
    ]
    path = out / "index.html"
    path.write_text(render_page(TITLE, introduction, sections), encoding="utf-8")
    return path


def pictures_section(evaluation: Evaluation) -> Section:
    """One table per reference: rows are prompts, columns are models; shows the first seed of each."""
    from stylear.curate.report.page import (
        Section,
        make_anchor,
        render_heading,
        render_paragraph,
        render_table,
        render_untrusted,
        shorten_text,
    )
    from stylear.curate.report.pictures import render_picture

    first: dict[tuple[str, str, str], Image.Image] = {}
    for sample in evaluation.samples:
        first.setdefault((sample.model, sample.reference, sample.prompt), sample.picture)
    legend = [[render_untrusted(m), escape(MODELS.get(m, ""))] for m in evaluation.models]
    blocks = []
    for reference in spread(evaluation.references, SHOWN_REFERENCES):
        rows = []
        for prompt in evaluation.prompts:
            cells = [
                render_picture(
                    first[model, reference.id, prompt],
                    f"{model}: {prompt}, in the style of {reference.style}",
                )
                for model in evaluation.models
            ]
            shown = render_picture(reference.picture, f"Style reference {reference.style}")
            rows.append([render_untrusted(prompt), shown, *cells])
        heads = ["prompt", "reference", *map(render_untrusted, evaluation.models)]
        name = shorten_text(reference.style)
        blocks.append(
            "<div>"
            + render_heading(3, name, make_anchor("style", reference.id))
            + render_table(f"Pictures in the style {name}", heads, rows, "grid")
            + "</div>"
        )
    note = (
        f"{len(blocks)} of {len(evaluation.references)} references, the first seed of each prompt; none was"
        " chosen by eye. No reference is in the corpus."
    )
    body = render_table("Models", ["model", "what it is"], legend) + render_paragraph(note)
    return Section(
        "pictures", "What each step changes", f'{body}<div class="blocks">{"".join(blocks)}</div>'
    )


def spread(items: Sequence[Reference], count: int) -> list[Reference]:
    """At most `count` of the items, evenly spaced, in their order."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def metrics_section(parts: Sequence[tuple[str, Evaluation]]) -> Section:
    """The metrics of each model and the win rates between steps, for each part of the evaluation."""
    from stylear.curate.report.page import (
        Section,
        make_anchor,
        render_heading,
        render_paragraph,
        render_table,
    )

    body = render_paragraph(METRICS_NOTE)
    for title, evaluation in parts:
        rows: Sequence[Mapping[str, Any]] = evaluation.table()
        table = [[escape(str(value)) for value in row.values()] for row in rows]
        heads = [escape(str(name)) for name in rows[0]]
        body += render_heading(3, title, make_anchor("measured", title))
        body += render_table(f"Metrics: {title}", heads, table)
        wins = [
            [escape(f"{model} against {other}"), *format_win_rates(evaluation, model, other)]
            for model, other in COMPARED
            if {model, other} <= set(evaluation.models)
        ]
        if wins:
            body += render_paragraph(WINS_NOTE)
            body += render_table(f"Win rates: {title}", ["", *WIN_METRICS], wins)
    return Section("measured", "Measured", body)


WIN_METRICS = ("clip_t", "clip_i", "texture", "harmonic")


def format_win_rates(evaluation: Evaluation, model: str, other: str) -> list[str]:
    """Win rates of a model against another, by metric."""
    rates = [evaluation.win_rate(model, other, metric) for metric in WIN_METRICS]
    return [escape(str(rate or "-")) for rate in rates]


def training_section(out: Path) -> Section:
    """Training curves of SFT and DPO."""
    from stylear.curate.report.charts import line_chart_svg
    from stylear.curate.report.page import Section

    charts = ""
    for run, groups in CURVES:
        text = (out / run / "metrics.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        for names in groups:
            series = {
                name: [(line["step"], line[name]) for line in lines if name in line]
                for name in names
            }
            charts += line_chart_svg(f"{run}: {', '.join(names)}", series)
    return Section("training", "Training", f'<div class="charts">{charts}</div>')


def time_section(seconds: Mapping[str, float]) -> Section:
    """How long each step took."""
    from stylear.curate.report.page import Cell, Section, render_table

    rows: list[list[Cell]] = [[escape(step), round(spent)] for step, spent in seconds.items()]
    return Section("time", "Time", render_table("Time of each step", ["step", "seconds"], rows))
