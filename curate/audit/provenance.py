"""Provenance: every stylized pair follows from its prompt, reference and settings; no opt-out was ignored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.audit.difference import Difference
from stylear.curate.corpus.layout import PLAN_STAGE
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.parquet import read_tables
from stylear.curate.corpus.tombstones import FORGOTTEN
from stylear.curate.fetch.blocks import EVIDENCE
from stylear.curate.fetch.optout import forbids_use
from stylear.curate.synthesize import dump_backend_settings
from stylear.curate.synthesize.job import Job
from stylear.errors import CorpusError

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

OPT_OUT = EVIDENCE["directives"]
OPT_OUT_REASONS = ("opted-out", "robots-disallowed", "robots-unreadable")
COLUMNS = [
    "key", "caption", "source", "content", "parent", "reference", "reference_sha256", "details",
    "image_sha256", "kept", "reason",
]  # fmt: skip
Row = Mapping[str, Any]


def check_opt_outs(corpus: Path) -> Iterator[Difference]:
    """Raw pairs that are kept though their server forbade it, and images of pairs dropped for that."""
    import pyarrow.compute as pc

    for path, table in read_tables(corpus / "raw", COLUMNS):
        file = f"raw/{path.name}"
        has_opt_out = pc.match_substring(table["details"], f'"{OPT_OUT}":')
        for row in table.filter(pc.and_(has_opt_out, table["kept"])).to_pylist():
            evidence = read_details(row, file).get(OPT_OUT)
            if isinstance(evidence, str) and forbids_use(parse_evidence(evidence), now=0.0):
                expected = "a response that allows its use"
                yield Difference("opt-out", file, expected, evidence, row["key"])
        dropped = pc.fill_null(
            pc.is_in(table["reason"], value_set=_strings(OPT_OUT_REASONS)), False
        )
        for row in table.filter(pc.and_(dropped, table["image_sha256"].is_valid())).to_pylist():
            expected = f"no image of a pair dropped as {row['reason']}"
            yield Difference("opt-out", file, expected, "one", row["key"])


def parse_evidence(evidence: str) -> Message:
    """The headers that fetch recorded, such as `x-robots-tag: noai; tdm-reservation: 1`."""
    headers = Message()
    for part in evidence.split("; "):
        name, separator, value = part.partition(": ")
        if separator and name in ("x-robots-tag", "tdm-reservation"):
            headers[name] = value
    return headers


def check_lineage(corpus: Path, recipe: Recipe) -> Iterator[Difference]:
    """Stylized pairs whose key, seed or reference does not follow from what they say of themselves.

    A key is a digest of backend, settings, reference, parent, prompt and candidate, so a pair that differs
    in one of these has another key. Its reference must be one that the plan knew, and all
    pairs must be drawn with the same weights.
    """
    references = read_references(corpus)
    settings = dump_backend_settings(recipe) if recipe.references else ""
    weights: dict[str, Any] = {}
    for path, table in read_tables(corpus / "stylized", COLUMNS):
        file = f"stylized/{path.name}"
        for row in table.to_pylist():
            if row["reason"] != FORGOTTEN:
                for name, expected, found in check_row(row, file, recipe, settings, references):
                    yield Difference("lineage", file, expected, found, f"{row['key']} {name}")
                for name, found in read_details(row, file).items():
                    if name.endswith("_sha256") and found != weights.setdefault(name, found):
                        expected = f"{weights[name]}, as for the first pair"
                        yield Difference(
                            "lineage", file, expected, f"{found}", f"{row['key']} {name}"
                        )


def check_row(
    row: Row, file: str, recipe: Recipe, settings: str, references: Mapping[str, set[str]]
) -> Iterator[tuple[str, str, str]]:
    """(field, expected, found) of what does not follow from a stylized pair's own record."""
    details, backend = read_details(row, file), recipe.synthesize.backend
    if row["source"] != f"synthesizer:{backend}":
        yield "source", f"synthesizer:{backend}", f"{row['source']}"
    known = references.get(row["reference"], set())
    if row["reference_sha256"] not in known:
        expected = " or ".join(sorted(known)) or "a reference of the plan"
        yield "reference", expected, f"{row['reference']} {row['reference_sha256']}"
    candidate, attempt = details.get("candidate"), details.get("attempt", 0)
    if not isinstance(candidate, int) or not isinstance(attempt, int):
        yield "candidate", "its number in the group", f"{candidate}"
        return
    job = Job(
        backend=backend,
        prompt=row["caption"],
        reference=row["reference"],
        reference_sha256=row["reference_sha256"],
        content=row["content"],
        parent=row["parent"],
        candidate=candidate,
        settings=settings,
        attempt=attempt,
    )
    for name, value in (("prompt", job.prompt), ("group", job.group), ("seed", job.seed)):
        if details.get(name) != value:
            yield name, f"{value}", f"{details.get(name)}"
    if job.key != row["key"]:
        yield "key", f"{job.key}, from backend, settings, reference, parent and prompt", row["key"]


def read_references(corpus: Path) -> dict[str, set[str]]:
    """The hashes of each style reference that some generation of the plan knew, by id."""
    known: dict[str, set[str]] = {}
    for entry in Ledger(corpus).entries(PLAN_STAGE):
        for name, sha256 in entry.note.get("references", {}).items():
            known.setdefault(name, set()).add(sha256)
    return known


def read_details(row: Row, file: str) -> Mapping[str, Any]:
    """The details of a row. Raises CorpusError if they are not a JSON object."""
    try:
        details = json.loads(row["details"])
        if not isinstance(details, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise CorpusError(
            f"{file}: expected the details of {row['key']} as JSON, found: {error}"
        ) from error
    return details


def _strings(values: tuple[str, ...]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string())
