"""The public summary of training content of the EU AI Act (Article 53(1)(d)), from the corpus metadata.

The sections are those of the Commission's template of July 2025. `summary.json` has the answers, `summary.md`
the same for people. What only the provider of a model can say is "not known to the corpus".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stylear.curate.corpus.storage import write_text
from stylear.curate.export.base import Export
from stylear.curate.export.corpus import canonical_text
from stylear.curate.export.facts import describe_model, shares
from stylear.curate.export.markdown import OwnMarkdown, inert_text, markdown_table

UNKNOWN = "not known to the corpus"
TOP_DOMAINS = 0.1  # share of the hosts that the template asks for, by content
SIZE_BYTES = 100_000
SIZES = ((1_000_000, "less than 1 million"), (1_000_000_000, "1 million to 1 billion"))
Answers = Mapping[str, Any]


class EuSummaryExport(Export):
    """`summary.json` and `summary.md`."""

    def write(self, folder: Path) -> None:
        answers = self.answer()
        write_text(folder / "summary.json", canonical_text(answers))
        write_text(folder / "summary.md", "\n\n".join(write_sections(answers)) + "\n")
        if self.bar is not None:
            self.bar.advance(self.corpus.num_pairs)

    def estimate_bytes(self) -> int:
        return SIZE_BYTES

    def answer(self) -> dict[str, Any]:
        """The answers, section by section."""
        return {
            "corpus": {"name": self.corpus.name, "manifest_sha256": self.corpus.manifest_sha256},
            "general": self.answer_general(),
            "sources": {
                "datasets": self.answer_datasets(),
                "crawled": self.answer_crawled(),
                "user_data": UNKNOWN,
                "synthetic": self.answer_synthetic(),
                "other": UNKNOWN,
            },
            "processing": self.answer_processing(),
            "licences": self.answer_licences(),
        }

    def answer_general(self) -> dict[str, Any]:
        """Section 1: provider, model, modalities and sizes."""
        facts = self.facts
        size = next((name for limit, name in SIZES if facts.num_pairs < limit), "over 1 billion")
        return {
            "provider": self.declared.creator or UNKNOWN,
            "model": UNKNOWN,
            "placed_on_the_market": UNKNOWN,
            "modalities": ["text", "image"],
            "images": {"size": size, "pairs": facts.num_pairs, "formats": sorted(facts.formats)},
            "text": {"pairs": facts.num_pairs, "kind": "captions and prompts, one a picture"},
            "latest_acquisition": facts.crawled[1] if facts.crawled else UNKNOWN,
            "languages": UNKNOWN,
            "published": self.declared.published or UNKNOWN,
        }

    def answer_datasets(self) -> dict[str, Any]:
        """Sections 2.1 and 2.2: data that existed before, by type of source."""
        facts = self.facts
        counts = {kind: count for kind, count in facts.sources.items() if kind != "urls"}
        return {
            "pairs_by_type_of_source": dict(sorted(counts.items())),
            "names": UNKNOWN,
            "public_or_private": UNKNOWN,
        }

    def answer_crawled(self) -> dict[str, Any]:
        """Section 2.3: what was downloaded from the web."""
        facts = self.facts
        pairs = facts.sources["urls"]
        if not pairs:
            return {"pairs": 0}
        named = math.ceil(TOP_DOMAINS * len(facts.domains))
        return {
            "pairs": pairs,
            "share_of_all_pairs": round(pairs / facts.num_pairs, 6),
            "crawler": "StyleAR toolkit, from lists of URLs that the recipe names",
            "first_day": facts.crawled[0] if facts.crawled else UNKNOWN,
            "last_day": facts.crawled[1] if facts.crawled else UNKNOWN,
            "hosts": len(facts.domains),
            "top_hosts": [
                {"host": host, "pairs": count, "share": round(share, 6)}
                for host, count, share in shares(facts.domains, named)
            ],
        }

    def answer_synthetic(self) -> dict[str, Any]:
        """Section 2.5: what models made."""
        facts = self.facts
        return {
            "pairs": facts.num_stylized,
            "share_of_all_pairs": round(facts.num_stylized / max(1, facts.num_pairs), 6),
            "models": [
                {"name": describe_model(model), "weights_sha256": model[2], "pairs": count}
                for model, count, _ in shares(facts.models)
            ],
            "styles": len(facts.styles),
            "training_data_of_these_models": UNKNOWN,
        }

    def answer_licences(self) -> dict[str, Any]:
        """Beside the template: licences of raw pairs in the words of their sources."""
        stated = {name: n for name, n in self.facts.licences.items() if name is not None}
        return {
            "licence_of_the_corpus": self.declared.licence or UNKNOWN,
            "pairs_by_licence": {name: count for name, count, _ in shares(stated)},
            "pairs_without_a_stated_licence": self.facts.licences[None],
        }

    def answer_processing(self) -> dict[str, Any]:
        """Section 3: reservations of rights, illegal content."""
        urls = [source for source in self.corpus.recipe.raw if source.type == "urls"]
        obeyed = ["X-Robots-Tag (noai, noimageai, noindex, ...)", "TDM-Reservation"] if urls else []
        if any(source.robots for source in urls):
            obeyed.append(
                "robots.txt" if all(s.robots for s in urls) else "robots.txt (some lists)"
            )
        return {
            "opt_outs_obeyed": obeyed,
            "pairs_left_out_for_opt_outs": self.facts.opted_out,
            "code_of_practice_signed": UNKNOWN,
            "removal_of_illegal_content": UNKNOWN,
            "other_filters": {
                stage: dict(sorted(dropped.items()))
                for stage in ("fetch", "filter", "mix")
                if (dropped := self.corpus.drop_counts(stage))
            },
        }


def write_sections(answers: Answers) -> Iterator[str]:
    """The summary for people."""
    general, sources, processing = (answers[n] for n in ("general", "sources", "processing"))
    yield f"# Public summary of training content: corpus {inert_text(answers['corpus']['name'])}"
    yield (
        f"Drawn from the corpus with manifest {inert_text(answers['corpus']['manifest_sha256'])}. A provider"
        f' adds what is "{UNKNOWN}", and the other data of the model.'
    )
    yield "## 1 General information"
    yield answer_table(
        ("Provider", general["provider"]),
        ("Model", general["model"]),
        ("Placed on the market", general["placed_on_the_market"]),
        ("Modalities", OwnMarkdown(", ".join(general["modalities"]))),
        (
            "Images",
            OwnMarkdown(f"{general['images']['size']} ({general['images']['pairs']:,} pairs)"),
        ),
        ("Text", OwnMarkdown(general["text"]["kind"])),
        ("Latest acquisition", general["latest_acquisition"]),
        ("Languages", general["languages"]),
    )
    yield "## 2 List of data sources"
    yield "### 2.1 Publicly available and 2.2 private datasets"
    datasets = sources["datasets"]
    yield format_counts(
        "type of source", datasets["pairs_by_type_of_source"], "No data set was used."
    )
    yield answer_table(
        ("Names", datasets["names"]),
        ("Public or private", datasets["public_or_private"]),
    )
    yield "### 2.3 Data crawled and scraped from online sources"
    yield from crawled_sections(sources["crawled"])
    yield "### 2.4 User data"
    yield sources["user_data"]
    yield "### 2.5 Synthetic data"
    yield from synthetic_sections(sources["synthetic"])
    yield "### 2.6 Other sources of data"
    yield sources["other"]
    yield "## 3 Data processing"
    yield "### 3.1 Respect of reservations of rights (text and data mining)"
    yield answer_table(
        (
            "Obeyed",
            "; ".join(processing["opt_outs_obeyed"]) or OwnMarkdown("nothing was downloaded"),
        ),
        ("Code of practice signed", processing["code_of_practice_signed"]),
    )
    left_out = processing["pairs_left_out_for_opt_outs"]
    yield format_counts("left out because", left_out, "No pair was left out for an opt-out.")
    yield "### 3.2 Removal of illegal content"
    yield processing["removal_of_illegal_content"]
    yield "### 3.3 Other information: filters"
    rows = [
        (s, r, n) for s, dropped in processing["other_filters"].items() for r, n in dropped.items()
    ]
    yield markdown_table(["stage", "reason", "pairs"], rows) if rows else "No pair was dropped."
    yield "## Beside the template: licences"
    licences = answers["licences"]
    yield answer_table(
        ("Licence of the corpus", licences["licence_of_the_corpus"]),
        ("Raw pairs whose source states none", licences["pairs_without_a_stated_licence"]),
    )
    yield format_counts(
        "licence, as stated by the source", licences["pairs_by_licence"], "No licence is stated."
    )


def crawled_sections(crawled: Answers) -> Iterator[str]:
    """Section 2.3."""
    if not crawled["pairs"]:
        yield "Nothing was downloaded from lists of URLs."
        return
    yield answer_table(
        ("Pairs", crawled["pairs"]),
        ("Share of all pairs", crawled["share_of_all_pairs"]),
        ("Crawler", OwnMarkdown(crawled["crawler"])),
        ("First and last day", f"{crawled['first_day']} to {crawled['last_day']}"),
        ("Hosts", crawled["hosts"]),
    )
    yield f"The {len(crawled['top_hosts'])} hosts with the most pictures, a tenth of all:"
    rows = [(top["host"], top["pairs"], top["share"]) for top in crawled["top_hosts"]]
    yield markdown_table(["host", "pairs", "share"], rows)


def synthetic_sections(synthetic: Answers) -> Iterator[str]:
    """Section 2.5."""
    if not synthetic["pairs"]:
        yield "No picture is synthetic."
        return
    yield answer_table(
        ("Pairs", synthetic["pairs"]),
        ("Share of all pairs", float(synthetic["share_of_all_pairs"])),
        ("Styles", synthetic["styles"]),
        ("Training data of these models", synthetic["training_data_of_these_models"]),
    )
    rows = [
        (m["name"], m["weights_sha256"] or OwnMarkdown("no weights"), m["pairs"])
        for m in synthetic["models"]
    ]
    yield markdown_table(["model", "sha256 of its weights", "pairs"], rows)


def format_counts(head: str, counts: Mapping[str, int], nothing: str) -> str:
    """A table of names with their numbers of pairs."""
    return markdown_table([head, "pairs", "share"], shares(counts)) if counts else nothing


def answer_table(*rows: tuple[str, object]) -> str:
    """A table of questions, in our words, and answers."""
    return markdown_table(
        ["question", "answer"],
        [(OwnMarkdown(question), own_words(answer)) for question, answer in rows],
    )


def own_words(answer: object) -> object:
    """An answer as a table cell; an unknown one is left as its sentence."""
    return OwnMarkdown(answer) if answer == UNKNOWN else answer
