"""The report of a corpus: one static page that needs nothing but itself.

Every text is escaped, every picture is a data URI, and a content security policy forbids the rest. The same
corpus gives the same bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stylear.curate.audit.manifest import read_warnings, stage_counts
from stylear.curate.corpus.candidates import Candidates, read_pairs, style_of
from stylear.curate.corpus.columns import (
    Index,
    Mask,
    Places,
    combine_chunks,
    hash_identities,
    to_bytes,
)
from stylear.curate.corpus.layout import MANIFEST, MIX, RECIPE, REPORT, VERDICTS
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.parquet import count_rows, read_table, read_tables
from stylear.curate.corpus.shards import shard_paths, tar_samples
from stylear.curate.corpus.storage import write_text
from stylear.curate.filter import read_diversity
from stylear.curate.mix.verdicts import apply_verdicts
from stylear.curate.recipe import Recipe, load_recipe
from stylear.curate.report.charts import histogram_svg
from stylear.curate.report.diversity import diversity_table
from stylear.errors import StylearError

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.references import StyleReference

KEPT_SHOWN, DROPPED_SHOWN, PREFERENCES_SHOWN = 12, 6, 8
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
CSS = Path(__file__).parent / "page.css"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the page is drawn from."""

    corpus: Path
    recipe: Recipe
    manifest: Mapping[str, Any]
    pairs: Candidates  # with the verdicts of the filter
    scores: Mapping[str, pa.FloatArray]  # in the order of the pairs
    mixed: Mask  # which pairs are in train or val


def write_report(corpus: Path) -> Path:
    """Write `report/index.html`; its path."""
    path = corpus / REPORT / "index.html"
    title = f"Corpus {load_recipe(corpus / RECIPE).name}"
    write_text(path, document(title, render_sections(corpus)))
    return path


def document(title: str, body: str) -> str:
    """A whole page around a body."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS.read_text('utf-8')}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def read_facts(corpus: Path) -> Facts:
    manifest = corpus / MANIFEST
    pairs = apply_verdicts(corpus, read_pairs(corpus))
    verdicts = read_table(corpus / VERDICTS)
    mix = read_table(corpus / MIX, ["key", "kept"])
    places = Index(to_bytes(pairs.key)).find(
        to_bytes(combine_chunks(mix["key"]).filter(combine_chunks(mix["kept"])))
    )
    mixed = np.zeros(len(pairs), bool)
    mixed[places[places >= 0]] = True
    return Facts(
        corpus,
        load_recipe(corpus / RECIPE),
        json.loads(manifest.read_text("utf-8")) if manifest.is_file() else {},
        pairs,
        {
            name.removeprefix("score."): combine_chunks(verdicts[name])
            for name in verdicts.column_names
            if name.startswith("score.")
        },
        mixed,
    )


def render_sections(corpus: Path) -> str:
    """The inside of the page: totals, funnel, scores, diversity, gallery, preferences, shards, recipe."""
    facts = read_facts(corpus)
    return "".join(
        [
            header(facts),
            funnel(facts),
            histograms(facts),
            diversity_table(read_diversity(corpus)),
            gallery(facts),
            preferences(facts),
            shard_table(facts),
            rebuild(facts),
        ]
    )


def header(facts: Facts) -> str:
    """Name and totals."""
    pairs, mixed = facts.pairs, facts.mixed
    stylized = int((mixed & pairs.stylized).sum())
    raw = int(mixed.sum()) - stylized
    contents = np.unique(hash_identities(pairs.content.filter(mixed)))
    references = pairs.reference.dictionary_encode().dictionary.to_pylist()
    styles = {style_of(reference) for reference in references if reference}
    ratio = f"{raw / stylized:.2f} : 1" if stylized else "-"
    totals = [
        (len(pairs), "pairs seen"),
        (raw + stylized, "in train and val"),
        (stylized, "of them stylized"),
        (ratio, "raw : stylized"),
        (len(contents), "distinct contents"),
        (len(styles), "styles"),
        (count_rows(facts.corpus / "preferences"), "preference pairs"),
    ]
    cards = "".join(f"<div><b>{escape(str(n))}</b><span>{what}</span></div>" for n, what in totals)
    warnings = "".join(
        f'<p class="warning">{escape(text)}</p>' for text in read_warnings(facts.corpus)
    )
    return f'<h1>Corpus {escape(facts.recipe.name)}</h1><div class="facts">{cards}</div>{warnings}'


def funnel(facts: Facts) -> str:
    """What each stage took in and left out, with reasons."""
    counted = stage_counts(Ledger(facts.corpus))
    nothing: dict[str, Any] = {"rows": 0, "kept": 0, "dropped": {}}
    lines = []
    for stage in ("fetch", "synthesize", "filter", "mix"):
        counts = counted.get(stage, nothing)
        lines.append((stage, counts["rows"], counts["kept"], counts["dropped"]))
    most = max((rows for _, rows, _, _ in lines), default=1) or 1
    body = ""
    for stage, came, kept, dropped in lines:
        why = ", ".join(f"{escape(r)} {n}" for r, n in sorted(dropped.items())) or "-"
        body += (
            f'<tr><td>{stage}</td><td class="n">{came}</td><td class="n">{kept}</td>'
            f'<td style="width:240px"><div class="bar" style="width:{100 * kept / most:.1f}%"></div>'
            f'<div class="bar out" style="width:{100 * (came - kept) / most:.1f}%"></div></td>'
            f"<td>{why}</td></tr>"
        )
    return (
        "<h2>Funnel</h2><table><tr><th>stage</th><th>in</th><th>kept</th><th></th>"
        f"<th>left out, and why</th></tr>{body}</table>"
    )


def histograms(facts: Facts) -> str:
    """Scores of stylized pairs, kept and dropped."""
    charts = ""
    for name, column in facts.scores.items():
        scores = column.to_numpy(zero_copy_only=False).astype(np.float64)
        kept, there = facts.pairs.kept, column.is_valid().to_numpy(zero_copy_only=False)
        charts += histogram_svg(name, scores[there & kept], scores[there & ~kept])
    key = (
        '<p class="mute"><span class="swatch" style="background:var(--a)"></span> kept '
        '<span class="swatch" style="background:var(--b)"></span> dropped</p>'
    )
    return f'<h2>Scores</h2>{key}<div class="charts">{charts}</div>' if charts else ""


def gallery(facts: Facts) -> str:
    """Per style: its references, kept pictures, dropped ones and why."""
    references, used = found_references(facts.recipe), used_references(facts.corpus)
    pictures = PairReader(facts.corpus, ["stylized"])
    parts: list[str] = []
    for style, places in by_style(facts.pairs):
        kept, lost = (places[facts.pairs.kept[places] == kind] for kind in (True, False))
        shown = [r for r in references if r.style == style and used.get(r.id, r.sha256) == r.sha256]
        gone = sorted({name for name in used if style_of(name) == style} - {r.id for r in shown})
        cells = [picture(r.image, [r.id, "reference"], "ref") for r in shown]
        for some, kind in ((kept[:KEPT_SHOWN], ""), (lost[:DROPPED_SHOWN], "no")):
            for place in some.tolist():
                pair = pictures.pair(facts.pairs.key[place].as_py())
                reason = facts.pairs.reason.word(place) if kind else None
                cells.append(
                    picture(pair.image, described(facts, place, pair.caption), kind, reason)
                )
        parts.append(
            f"<h3>{escape(style)} <span class='mute'>{len(kept)} kept, {len(lost)} dropped</span></h3>"
        )
        if gone:
            parts.append(
                '<p class="mute">References that are gone or were changed since:'
                f" {escape(', '.join(gone))}</p>"
            )
        parts.append(f'<div class="pics">{"".join(cells)}</div>')
    return "".join(["<h2>Styles</h2>", *parts] if parts else [])


def found_references(recipe: Recipe) -> list[StyleReference]:
    """The references that still are where the recipe says; a finished corpus does not need them."""
    from stylear.curate.references import load_references

    found: list[StyleReference] = []
    for source in recipe.references:
        with suppress(StylearError):
            found += load_references(recipe.model_copy(update={"references": (source,)}))
    return sorted(found, key=lambda reference: reference.id)


def used_references(corpus: Path) -> dict[str, str | None]:
    """The references of the stylized pairs and their recorded hashes."""
    used: dict[str, str | None] = {}
    for _, table in read_tables(corpus / "stylized", ["reference", "reference_sha256"]):
        names, hashes = (table[name].to_pylist() for name in table.column_names)
        used.update(zip(map(str, names), hashes, strict=True))
    return used


def by_style(pairs: Candidates) -> Iterator[tuple[str, Places]]:
    """Each style by name with its stylized pairs, by key."""
    places = np.flatnonzero(pairs.stylized)
    encoded = pairs.reference.take(places).fill_null("None").dictionary_encode()
    names = [style_of(name) for name in encoded.dictionary.to_pylist()]
    styles = sorted(set(names))
    number = np.array([styles.index(name) for name in names], np.int64)[encoded.indices.to_numpy()]
    order = np.lexsort((to_bytes(pairs.key.take(places)), number))
    edges = np.searchsorted(number[order], np.arange(len(styles) + 1))
    for style, start, end in zip(styles, edges, edges[1:], strict=False):
        yield style, places[order[start:end]]


def described(facts: Facts, place: int, caption: str) -> list[str]:
    """Caption and scores."""
    scores = [
        f"{name} {column[place].as_py():.2f}"
        for name, column in facts.scores.items()
        if column[place].is_valid
    ]
    return [caption, " · ".join(scores)]


def picture(data: bytes, lines: Sequence[str], kind: str, reason: str | None = None) -> str:
    """A picture, or a gap where there is none, with lines and the reason of a drop below it."""
    words = [escape(line[:120]) for line in lines if line]
    words += [f"<em>{escape(reason)}</em>"] if reason else []
    image = f'<img alt="" src="{data_uri(data)}">' if data else ""
    return f'<div class="pic {kind}">{image}{"<br>".join(words)}</div>'


def data_uri(data: bytes) -> str:
    """The image bytes as a data URI."""
    kind = "png"
    if data[:3] == b"\xff\xd8\xff":
        kind = "jpeg"
    elif data[8:12] == b"WEBP":
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def preference_samples(corpus: Path) -> Iterator[dict[str, bytes]]:
    for tar in shard_paths(corpus / "preferences"):
        for _, sample in tar_samples(tar):
            yield sample


def preferences(facts: Facts) -> str:
    """Some preference pairs: chosen, rejected, scores."""
    cells = []
    for sample in islice(preference_samples(facts.corpus), PREFERENCES_SHOWN):
        record = json.loads(sample["json"])
        for side, kind in (("chosen", ""), ("rejected", "no")):
            data = next(v for k, v in sample.items() if k.startswith(f"{side}."))
            score = f"{side} {float(record[f'{side}_score']):.3f}"
            cells.append(picture(data, [str(record["caption"]), score], kind))
    if not cells:
        return ""
    return f'<h2>Preference pairs</h2><div class="pics">{"".join(cells)}</div>'


def shard_table(facts: Facts) -> str:
    """The files of the training splits with size and hash."""
    files: Mapping[str, Any] = facts.manifest.get("files", {})
    body = "".join(
        f'<tr><td>{escape(name)}</td><td class="n">{int(info["bytes"]):,}</td>'
        f"<td><code>{escape(str(info['sha256'])[:16])}</code></td></tr>"
        for name, info in sorted(files.items())
        if name.startswith(("train/", "val/", "preferences/"))
    )
    return f"<h2>Files</h2><table><tr><th>file</th><th>bytes</th><th>sha256</th></tr>{body}</table>"


def rebuild(facts: Facts) -> str:
    """The recipe and how to build the same bytes again."""
    recipe = (facts.corpus / RECIPE).read_text("utf-8")
    return (
        "<h2>Recipe</h2><p>The same bytes again: <code>stylear curate run recipe.yaml --out CORPUS</code></p>"
        f"<pre>{escape(recipe)}</pre>"
    )
