"""The versions of packages and the weights of models that a corpus was made with."""

from __future__ import annotations

import json
from html import escape

from stylear.curate.corpus.layout import score_paths
from stylear.curate.corpus.parquet import read_table, read_tables
from stylear.curate.report.facts import Facts
from stylear.curate.report.page import (
    Cell,
    Section,
    render_paragraph,
    render_table,
    render_untrusted,
)
from stylear.curate.score import read_metadata

NOTE = "The versions that manifest.json records, and the models by the hash of their weights."


def versions_section(facts: Facts) -> Section | None:
    """Packages and models; None where nothing is recorded."""
    packages = facts.manifest.get("versions", {})
    models = list_models(facts)
    if not packages and not models:
        return None
    body = render_paragraph(NOTE)
    if packages:
        rows: list[list[Cell]] = [
            [render_untrusted(str(name)), f"<code>{escape(str(version))}</code>"]
            for name, version in packages.items()
        ]
        body += render_table("Versions of packages", ["package", "version"], rows)
    if models:
        heads = ["used for", "what", "model", "sha256 of the weights"]
        body += render_table("Models", heads, [[render_untrusted(c) for c in m] for m in models])
    return Section("versions", "Versions", body)


def list_models(facts: Facts) -> list[tuple[str, str, str, str]]:
    """(use, type, model, hash) of the synthesisers and scorers, in order, each once."""
    models: dict[tuple[str, str, str, str], None] = {}
    for _, table in read_tables(facts.corpus / "stylized", ["source", "details"]):
        for row in table.slice(0, 1).to_pylist():
            details = json.loads(row["details"])
            name, sha256 = (format_value(details.get(n)) for n in ("model", "model_sha256"))
            models["synthesize", row["source"].removeprefix("synthesizer:"), name, sha256] = None
    for spec in facts.recipe.score:
        for path in score_paths(facts.corpus, spec.name)[:1]:
            metadata = read_metadata(read_table(path, ["key"]))
            values = (format_value(metadata.get(n)) for n in ("type", "model", "weights_sha256"))
            kind, name, sha256 = values
            models[f"score {spec.name}", kind, name, sha256] = None
    return list(models)


def format_value(value: object) -> str:
    """A value as text; a dash for none."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)
