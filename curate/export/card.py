"""The dataset card of a Hugging Face folder: its content, its provenance, and what is unknown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from stylear.curate.export.corpus import PREFERENCES, ExportedCorpus
from stylear.curate.export.declared import Declared
from stylear.curate.export.facts import Facts, describe_model, shares
from stylear.curate.export.markdown import OwnMarkdown, inert_text, markdown_table
from stylear.curate.export.record import FIELDS, SPLIT_NAMES

SIZES = (  # pairs below, the hub's name of the category
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"),
)  # fmt: skip
HUB_LICENCES = frozenset(
    {
        "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
        "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0",
        "cc-by-sa-4.0", "cc0-1.0", "mit", "odbl", "odc-by", "openrail", "pddl", "unlicense", "wtfpl",
    }
)  # fmt: skip
LISTED = 100  # styles, licences and domains that the card lists; the rest is counted
NOT_STATED = "not stated by the source"


def dataset_card(
    corpus: ExportedCorpus, facts: Facts, declared: Declared, extension: str, preferences: bool
) -> str:
    """The card as Markdown with its YAML head."""
    head = yaml.safe_dump(
        card_metadata(corpus, facts, declared, extension, preferences),
        sort_keys=False,
        allow_unicode=True,
        width=2**31,
    )
    return f"---\n{head}---\n\n" + "\n\n".join(sections(corpus, facts, declared, extension)) + "\n"


def card_metadata(
    corpus: ExportedCorpus, facts: Facts, declared: Declared, extension: str, preferences: bool
) -> dict[str, Any]:
    """The head of the card."""
    files = [
        {"split": SPLIT_NAMES[split], "path": f"data/{SPLIT_NAMES[split]}-*.tar"}
        for split in corpus.split_sizes
    ]
    configs: list[dict[str, Any]] = [
        {"config_name": "default", "data_files": files, "default": True}
    ]
    if preferences:
        pairs = [{"split": "train", "path": f"{PREFERENCES}/*.tar"}]
        configs.append({"config_name": PREFERENCES, "data_files": pairs})
    size = next((name for limit, name in SIZES if facts.num_pairs < limit), "n>1T")
    return {
        **hub_licence(facts, declared),
        "pretty_name": corpus.name,
        "size_categories": [size],
        "task_categories": ["text-to-image"],
        "tags": ["webdataset", "style", *(["synthetic"] if facts.num_stylized else [])],
        "configs": configs,
        "dataset_info": [{"config_name": "default", "features": features(extension)}],
    }


def hub_licence(facts: Facts, declared: Declared) -> dict[str, str]:
    """The licence by the hub's names: `unknown` unless declared, or stated alike by every source."""
    name = declared.licence
    if name is None:
        if len(facts.licences) != 1 or None in facts.licences:
            known = any(licence is not None for licence in facts.licences)
            return {"license": "other" if known else "unknown"}
        name = next(licence for licence in facts.licences if licence is not None)
    if name.lower() in HUB_LICENCES:
        return {"license": name.lower()}
    return {"license": "other", "license_name": " ".join(name.split())[:100]}


def features(extension: str) -> list[dict[str, Any]]:
    """The columns into which `datasets` turns a sample, in the card's spelling."""
    record = [
        {"name": name, "dtype": "int64" if name in ("width", "height") else "string"}
        for name in FIELDS
    ]
    return [
        {"name": extension, "dtype": "image"},
        {"name": "txt", "dtype": "string"},
        {"name": "json", "struct": record},
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]


def sections(
    corpus: ExportedCorpus, facts: Facts, declared: Declared, extension: str
) -> Iterator[str]:
    """The text of the card, section by section."""
    yield f"# {inert_text(corpus.name)}"
    yield (
        f"Pairs of caption and picture for training text-to-image models in given styles:"
        f" {facts.num_raw:,} raw pairs and {facts.num_stylized:,} pairs synthesised in"
        f" {len(facts.styles):,} styles."
    )
    yield markdown_table(
        ["split", "raw", "stylized"],
        [(SPLIT_NAMES[s], facts.raw[s], facts.stylized[s]) for s in corpus.split_sizes],
    )
    yield (
        "```python\nfrom datasets import load_dataset\n\n"
        f'pairs = load_dataset("PATH", split="train", streaming=True)\n'
        f'next(iter(pairs))["{extension}"], next(iter(pairs))["txt"], next(iter(pairs))["json"]\n```'
    )
    yield "## How it was made"
    yield how_made(corpus, facts)
    yield "## Styles"
    yield listing("style", facts.styles, "No pair is stylized.")
    yield "## Licences"
    yield licence_text(facts, declared)
    yield "## Sources"
    yield listing("type of source", facts.sources, "No pair is raw.")
    if facts.domains:
        yield listing("host", facts.domains, "")
        yield opt_out_text(corpus, facts)
    yield "## Fields"
    yield markdown_table(
        ["field of `json`", "meaning"],
        [(name, OwnMarkdown(text)) for name, (_, text) in FIELDS.items()],
    )


def how_made(corpus: ExportedCorpus, facts: Facts) -> str:
    """Generators, filters and the reproducibility of the corpus."""
    recipe = corpus.recipe
    backends = ", ".join(
        f"{inert_text(describe_model(model))} ({count:,} pairs"
        + (f", weights {model[2][:16]}" if model[2] else "")
        + ")"
        for model, count, _ in shares(facts.models)
    )
    scores = ", ".join(inert_text(f"{score.name} ({score.type})") for score in recipe.score)
    dropped = ", ".join(
        f"{inert_text(reason)} {count:,}"
        for reason, count in sorted(corpus.drop_counts("filter").items())
    )
    lines = [
        f"- built with StyleAR toolkit {inert_text(corpus.manifest['versions'].get('stylear', ''))},"
        f" recipe sha256 {inert_text(corpus.manifest['recipe_sha256'])}, seed {recipe.seed}",
        f"- manifest of the corpus: sha256 {inert_text(corpus.manifest_sha256)}",
        f"- synthesised by: {backends or 'nothing'}; the {len(facts.references):,} style references are not"
        " part of the data",
        f"- scored by: {scores or 'nothing'}",
        f"- dropped by filters: {dropped or 'nothing'}",
    ]
    return "\n".join(lines)


def listing(head: str, counts: Any, nothing: str) -> str:
    """A table of names with their numbers of pairs; at most the LISTED most frequent ones."""
    if not counts:
        return nothing
    table = markdown_table([head, "pairs", "share"], shares(counts, LISTED))
    more = len(counts) - LISTED
    return table if more <= 0 else f"{table}\n\nand {more:,} more"


def licence_text(facts: Facts, declared: Declared) -> str:
    """The licences of the raw pairs."""
    names = {licence or OwnMarkdown(NOT_STATED): n for licence, n in facts.licences.items()}
    whole = (
        "The licence of the data set as a whole was not stated."
        if declared.licence is None
        else f"The publisher states for the data set as a whole: {inert_text(declared.licence)}."
    )
    return (
        f"{whole} Licences of the raw pictures, in the words of their sources:\n\n"
        f"{listing('licence', names, 'No pair is raw.')}\n\n"
        "A stylized picture depends on its raw parent, on its style reference and on the terms of the model"
        " that drew it."
    )


def opt_out_text(corpus: ExportedCorpus, facts: Facts) -> str:
    """The opt-outs that were obeyed."""
    robots = [source.robots for source in corpus.recipe.raw if source.type == "urls"]
    verb = "was" if robots and all(robots) else "was not" if not any(robots) else "was partly"
    dropped = ", ".join(
        f"{inert_text(reason)} {count:,}" for reason, count in facts.opted_out.items()
    )
    days = "" if facts.crawled is None else f" between {facts.crawled[0]} and {facts.crawled[1]}"
    return (
        f"Pictures were downloaded{days}. `X-Robots-Tag` and TDMRep headers were obeyed; robots.txt {verb}"
        f" asked for. Left out for that: {dropped or 'nothing'}."
    )
