"""Licences as the sources state them, and the opt-outs that were obeyed."""

from __future__ import annotations

import json
from collections import Counter

from stylear.curate.audit.manifest import stage_counts
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.licences import OPT_OUTS, find_licence
from stylear.curate.corpus.parquet import read_tables
from stylear.curate.corpus.tombstones import FORGOTTEN
from stylear.curate.report.facts import Facts
from stylear.curate.report.links import PairLinks
from stylear.curate.report.page import (
    Cell,
    Section,
    render_paragraph,
    render_table,
    render_untrusted,
)

NOT_STATED = "(not stated)"
SHOWN = 50
MEANING = {
    "opted-out": "headers of the server forbid the use (X-Robots-Tag, TDMRep)",
    "robots-disallowed": "robots.txt forbids the download",
    "robots-unreadable": "robots.txt could not be read, so nothing was downloaded",
    FORGOTTEN: "taken out by `stylear curate forget`; only the key is left",
}
NOTE = (
    "Licences of raw pairs in the words of their sources. A stylized picture depends on its raw parent, on"
    " its style reference and on the terms of the model that drew it."
)


def licences_section(facts: Facts, links: PairLinks) -> Section:
    """How many raw pairs have each licence, and how many were left out because of an objection."""
    seen, used = count_licences(facts)
    most = sorted(seen, key=lambda name: (-seen[name], name))
    rows: list[list[Cell]] = [
        [
            render_untrusted(name),
            links.count(seen[name], licence=name),
            links.count(used[name], licence=name, outcome="used"),
        ]
        for name in most[:SHOWN]
    ]
    note = NOTE + (
        f" The {SHOWN} of {len(most):,} licences with most pairs." if len(most) > SHOWN else ""
    )
    body = render_paragraph(note)
    body += render_table("Licences", ["licence", "raw pairs", "in train and val"], rows)
    return Section("licences", "Licences and opt-outs", body + render_opt_outs(facts, links))


def count_licences(facts: Facts) -> tuple[Counter[str], Counter[str]]:
    """Raw pairs by licence: all of them, and those in train and val."""
    seen: Counter[str] = Counter()
    used: Counter[str] = Counter()
    start = 0
    for _, table in read_tables(facts.corpus / "raw", ["details"]):
        texts = table["details"].to_pylist()
        names = [find_licence(json.loads(text)) or NOT_STATED for text in texts]
        mixed = facts.mixed[start : start + len(names)].tolist()
        seen.update(names)
        used.update(name for name, is_used in zip(names, mixed, strict=True) if is_used)
        start += len(names)
    return seen, used


def render_opt_outs(facts: Facts, links: PairLinks) -> str:
    """The pairs that were left out because of an opt-out or a request, and what was asked of servers."""
    counts = stage_counts(Ledger(facts.corpus))
    rows: list[list[Cell]] = []
    for stage, reasons in (("fetch", (*OPT_OUTS, FORGOTTEN)), ("synthesize", (FORGOTTEN,))):
        dropped = counts.get(stage, {}).get("dropped", {})
        rows += [
            [
                render_untrusted(reason),
                links.count(dropped[reason], outcome=f"dropped:{stage}", reason=reason),
                f"{MEANING[reason]} ({'raw' if stage == 'fetch' else 'stylized'} pairs)",
            ]
            for reason in reasons
            if reason in dropped
        ]
    robots = [source.robots for source in facts.recipe.raw if source.type == "urls"]
    if not robots:
        words = "Nothing was downloaded by URL, so no server was asked."
    else:
        verb = "was" if all(robots) else "was partly" if any(robots) else "was not"
        words = (
            f"Opt-out headers of servers are always obeyed; robots.txt {verb} asked for (robots)."
        )
    table = render_table("Opt-outs", ["left out because", "pairs", "what it means"], rows)
    return render_paragraph(words) + (
        table if rows else render_paragraph("No pair was left out for an opt-out or a request.")
    )
