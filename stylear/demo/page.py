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

TITLE = "StyleAR toolkit: the demo"
TRAINING = {
    "base": "mini-ar: the embedded drawings only, text only; it cannot see the reference",
    "shipped": "mini-stylear: mini-ar after SFT on rendered drawings in 320 variants of 20 styles",
    "after SFT": "mini-stylear after SFT (LoRA) on the corpus below",
    "after DPO": "the same after DPO on the preference pairs below",
}
METRICS_NOTE = (
    "Mean and 95% bootstrap interval over (reference, prompt) pairs. clip_t: similarity of picture and"
    " prompt; clip_i: of picture and reference; texture: of their textures, measured without weights;"
    " harmonic: mean of clip_t and texture; leakage: how much of the reference's own content shows."
)
CURVES = (
    ("sft", [["loss", "validation_loss"]]),
    ("dpo", [["loss"], ["margin", "accuracy"], ["chosen_log_prob", "rejected_log_prob"]]),
)


def write_page(out: Path, evaluation: Evaluation, seconds: Mapping[str, float]) -> Path:
    """Write `index.html` into the demo's folder; its path."""
    from stylear.curate.report.corpus_page import corpus_sections
    from stylear.curate.report.facts import read_facts
    from stylear.curate.report.overview import render_totals
    from stylear.curate.report.page import Section, render_page, render_paragraph

    facts = read_facts(out / "corpus")
    introduction = render_paragraph(
        "A style corpus was built and audited, a small model was trained on it, and it drew prompts in the"
        " style of reference pictures. Everything ran offline on this machine, on the embedded mini family.",
        "introduction",
    )
    sections = [
        pictures_section(evaluation),
        metrics_section(evaluation),
        training_section(out),
        time_section(seconds),
        Section("corpus", f"Corpus {facts.recipe.name}", render_totals(facts)),
        *corpus_sections(facts, "corpus"),
    ]
    path = out / "index.html"
    path.write_text(render_page(TITLE, introduction, sections), encoding="utf-8")
    return path


def pictures_section(evaluation: Evaluation) -> Section:
    """One table a model: rows are references, columns are prompts; the first seed of each."""
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
    parts = [
        render_paragraph("The first seed of each reference and prompt; none was chosen by eye.")
    ]
    for number, model in enumerate(evaluation.models, 1):
        rows = []
        for reference in evaluation.references:
            style = reference.id.split("--")[0]
            held_out = '<span class="held-out">held out</span>' if reference.held_out else ""
            cells = [
                render_picture(
                    first[model, reference.id, prompt],
                    f"{model}: {prompt}, in the style of {style}",
                )
                for prompt in evaluation.prompts
            ]
            shown = render_picture(reference.picture, f"Style reference {style}")
            rows.append([shown, f"{escape(shorten_text(style))} {held_out}", *cells])
        heads = ["reference", "style", *map(render_untrusted, evaluation.prompts)]
        anchor = make_anchor("model", str(number), model)
        parts += [
            render_heading(3, shorten_text(model), anchor, TRAINING.get(model, "")),
            render_table(f"Pictures of {shorten_text(model)}", heads, rows, "grid"),
        ]
    return Section("pictures", "Pictures", "".join(parts))


def metrics_section(evaluation: Evaluation) -> Section:
    """The metrics of each model with their 95% intervals."""
    from stylear.curate.report.page import Section, render_paragraph, render_table

    rows: Sequence[Mapping[str, Any]] = evaluation.table()
    table = [[escape(str(value)) for value in row.values()] for row in rows]
    heads = [escape(str(name)) for name in rows[0]]
    body = render_paragraph(METRICS_NOTE) + render_table("Metrics of each model", heads, table)
    return Section("measured", "Measured", body)


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
