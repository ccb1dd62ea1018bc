"""Corpus metadata, counted from its tables, its ledger and its recipe; no picture is read.

Memory grows with the number of different domains, licences and styles, not with the number of pairs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from stylear.curate.corpus import parquet
from stylear.curate.corpus.layout import FETCHED
from stylear.curate.corpus.licences import OPT_OUTS, find_licence
from stylear.curate.export.corpus import ExportedCorpus
from stylear.curate.export.record import parse_style, parse_synthesizer, text_or_none

COLUMNS = ("kind", "source", "reference", "details", "width", "height", "ext")
NO_HOST = "(not a host name)"
Model = tuple[str, str | None, str | None]  # backend, model, sha256 of its files


@dataclass
class Facts:
    """Counts of the pairs in the splits. `None` as a licence stands for none stated."""

    raw: Counter[str] = field(default_factory=Counter)  # by split
    stylized: Counter[str] = field(default_factory=Counter)  # by split
    styles: Counter[str] = field(default_factory=Counter)  # stylized pairs of each
    references: set[str] = field(default_factory=set)
    models: Counter[Model] = field(default_factory=Counter)
    licences: Counter[str | None] = field(default_factory=Counter)  # raw pairs of each
    domains: Counter[str] = field(default_factory=Counter)  # raw pairs of each host
    sources: Counter[str] = field(default_factory=Counter)  # raw pairs of each type of source
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height)
    formats: Counter[str] = field(default_factory=Counter)  # png, jpg, webp
    opted_out: dict[str, int] = field(default_factory=dict)  # pairs dropped, by reason
    crawled: tuple[str, str] | None = None  # days (UTC) of the first and the last download

    @property
    def num_raw(self) -> int:
        return self.raw.total()

    @property
    def num_stylized(self) -> int:
        return self.stylized.total()

    @property
    def num_pairs(self) -> int:
        return self.num_raw + self.num_stylized


def gather_facts(corpus: ExportedCorpus) -> Facts:
    """Count the pairs in the splits. Raises CorpusError for a table that does not match the manifest."""
    facts = Facts()
    for split in corpus.split_sizes:
        for tar in corpus.shards(split):
            path = tar.with_suffix(".parquet")
            corpus.require_unchanged(path)
            for batch in parquet.read_batches(path, COLUMNS):
                for row in batch.to_pylist():
                    count_row(facts, split, row)
    dropped = corpus.drop_counts("fetch")
    facts.opted_out = {reason: dropped[reason] for reason in OPT_OUTS if reason in dropped}
    facts.crawled = crawl_days(corpus)
    return facts


def count_row(facts: Facts, split: str, row: Mapping[str, Any]) -> None:
    """Count one row of a table."""
    details = json.loads(row["details"])
    if row["width"] is not None:
        facts.sizes[row["width"], row["height"]] += 1
        facts.formats[row["ext"]] += 1
    if row["kind"] == "stylized":
        facts.stylized[split] += 1
        facts.references.add(row["reference"] or "")
        facts.styles[parse_style(row["reference"]) or ""] += 1
        backend = parse_synthesizer(row["source"]) or row["source"]
        model, sha256 = (text_or_none(details.get(name)) for name in ("model", "model_sha256"))
        facts.models[backend, model, sha256] += 1
        return
    facts.raw[split] += 1
    facts.licences[find_licence(details)] += 1
    kind, host = source_type(row["source"])
    facts.sources[kind] += 1
    if host is not None:
        facts.domains[host] += 1


def source_type(source: str) -> tuple[str, str | None]:
    """The type of a raw pair's source (urls, folder, shard, ...) and, of a URL, the host."""
    scheme, separator, _ = source.partition(":")
    if not separator:
        return "other", None
    if scheme.lower() not in ("http", "https"):
        return scheme if scheme.isascii() and scheme.isalpha() else "other", None
    try:
        host = urlsplit(source).hostname
    except ValueError:
        host = None
    return "urls", host.rstrip(".") or NO_HOST if host else NO_HOST


def crawl_days(corpus: ExportedCorpus) -> tuple[str, str] | None:
    """The days of the first and the last download, as recorded by fetch; None without downloads."""
    first: Any = None
    last: Any = None
    for _, table in parquet.read_tables(corpus.path / FETCHED, ["fetched_at"]):
        for value in table["fetched_at"].to_pylist():
            first = value if first is None or value < first else first
            last = value if last is None or value > last else last
    return None if first is None else (first.date().isoformat(), last.date().isoformat())


def shares(counts: Mapping[Any, int], limit: int | None = None) -> Iterator[tuple[Any, int, float]]:
    """(name, count, share), the most frequent first; names of one count in their order."""
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    for name, count in ordered[:limit]:
        yield name, count, count / total


def describe_model(model: Model) -> str:
    """A synthesiser in words: its backend and, where it has weights, its model."""
    backend, name, _ = model
    return backend if name is None else f"{backend} with {name}"
