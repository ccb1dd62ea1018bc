"""The page of `stylear demo`: what the models draw, how they were measured, how the corpus was built."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from stylear.evaluation.evaluate import Evaluation

SAW = {
    "base": "mini-ar: the embedded drawings only, text only; it cannot see the reference",
    "shipped": "mini-stylear: mini-ar after SFT on rendered drawings in 320 variants of 20 styles",
    "after SFT": "mini-stylear after SFT (LoRA) on the corpus below",
    "after DPO": "the same after DPO on the preference pairs below",
}


def write_page(out: Path, evaluation: Evaluation, seconds: Mapping[str, float]) -> Path:
    """Write `index.html` into the demo's folder; its path."""
    from stylear.curate.report.page import document, render_sections

    body = "".join(
        [
            "<h1>StyleAR toolkit: the demo</h1><p>A style corpus was built and audited, a small model "
            "was trained on it, and it drew prompts in the style of reference pictures. Everything ran "
            "offline on this machine, on the embedded mini family.</p>",
            grid(evaluation),
            table(evaluation),
            curves(out),
            minutes(seconds),
            render_sections(out / "corpus"),
        ]
    )
    path = out / "index.html"
    path.write_text(document("StyleAR demo", body), encoding="utf-8")
    return path


def grid(evaluation: Evaluation) -> str:
    """One block a model: rows are references, columns are prompts; first seed."""
    first: dict[tuple[str, str, str], Image.Image] = {}
    for sample in evaluation.samples:
        first.setdefault((sample.model, sample.reference, sample.prompt), sample.picture)
    parts = ["<h2>Pictures</h2><p>First seed of everything, nothing chosen.</p>"]
    for model in evaluation.models:
        head = "".join(f"<th>{escape(prompt)}</th>" for prompt in evaluation.prompts)
        rows = ""
        for reference in evaluation.references:
            held = "<br><span class='held'>held out</span>" if reference.held_out else ""
            cells = "".join(
                f"<td>{image(first[model, reference.id, prompt])}</td>"
                for prompt in evaluation.prompts
            )
            name = escape(reference.id.split("--")[0])
            rows += f"<tr><td>{image(reference.picture)}</td><td>{name}{held}</td>{cells}</tr>"
        saw = escape(SAW.get(model, ""))
        parts.append(
            f'<h3>{escape(model)} <span class="mute">{saw}</span></h3><table class="grid">'
            f"<tr><th>reference</th><th></th>{head}</tr>{rows}</table>"
        )
    return "".join(parts)


def image(picture: Image.Image) -> str:
    """The picture as an inline PNG."""
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "PNG", optimize=True)
    return (
        f'<img alt="" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'
    )


def table(evaluation: Evaluation) -> str:
    """Metrics with their 95% intervals."""
    rows: Sequence[Mapping[str, Any]] = evaluation.table()
    head = "".join(f"<th>{escape(str(name))}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return (
        "<h2>Measured</h2><p>Mean and 95% bootstrap interval over (reference, prompt) pairs. clip_t: "
        "picture and prompt; clip_i: picture and reference; texture: weight-free texture similarity to "
        "the reference; harmonic: mean of clip_t and texture; leakage: how much of the reference's own "
        f"content shows.</p><table><tr>{head}</tr>{body}</table>"
    )


def curves(out: Path) -> str:
    """Training curves of SFT and DPO."""
    from stylear.curate.report.charts import line_chart_svg

    charts = ""
    for run, groups in (
        ("sft", [["loss", "validation_loss"]]),
        ("dpo", [["loss"], ["margin", "accuracy"], ["chosen_log_prob", "rejected_log_prob"]]),
    ):
        text = (out / run / "metrics.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        for names in groups:
            series = {
                name: [(line["step"], line[name]) for line in lines if name in line]
                for name in names
            }
            charts += line_chart_svg(f"{run}: {', '.join(names)}", series)
    return f'<h2>Training</h2><div class="charts">{charts}</div>'


def minutes(seconds: Mapping[str, float]) -> str:
    """What each step took."""
    rows = "".join(
        f"<tr><td>{escape(k)}</td><td class='n'>{v:.0f} s</td></tr>" for k, v in seconds.items()
    )
    return f"<h2>Time</h2><table>{rows}</table>"
