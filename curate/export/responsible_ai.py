"""Croissant's `rai:` keys and the provenance of the data set as a whole, in PROV-O."""

from __future__ import annotations

from typing import Any

from stylear.curate.export.corpus import ExportedCorpus
from stylear.curate.export.facts import Facts, describe_model, shares

COLLECTION_TYPES = {
    "urls": "Web Scraping"
}  # of a type of source; others are data that exist already
SECONDARY, SOFTWARE = "Secondary Data Analysis", "Software Collection"
MOST = 5  # domains and styles that a sentence names


def describe(corpus: ExportedCorpus, facts: Facts) -> dict[str, Any]:
    """The keys that the corpus metadata can fill; others are left out."""
    keys: dict[str, Any] = {
        "prov:wasDerivedFrom": [
            source_entity(kind, count) for kind, count, _ in shares(facts.sources)
        ],
        "prov:wasGeneratedBy": activities(corpus, facts),
        "rai:dataCollection": describe_collection(facts),
        "rai:dataCollectionType": collection_types(facts),
        "rai:dataPreprocessingProtocol": describe_processing(corpus),
        "rai:machineAnnotationTools": [f"{s.name}: {s.type}" for s in corpus.recipe.score],
        "rai:dataBiases": describe_biases(facts),
        "rai:dataLimitations": describe_limits(facts),
        "rai:dataUseCases": ["Training and validation of style-aligned text-to-image models."],
        "rai:personalSensitiveInformation": [
            "Not known to the corpus: no detector of persons or personal data has looked at it."
        ],
    }
    if facts.crawled is not None:
        keys["rai:dataCollectionTimeFrame"] = list(facts.crawled)
    return {name: value for name, value in keys.items() if value}


def source_entity(kind: str, count: int) -> dict[str, Any]:
    """A type of source as an entity."""
    return {"@type": "prov:Entity", "prov:label": f"{count} raw pairs from sources of type {kind}"}


def activities(corpus: ExportedCorpus, facts: Facts) -> list[dict[str, Any]]:
    """How the corpus was made: the recipe, and each synthesiser with its weights."""
    version = corpus.manifest["versions"].get("stylear", "")
    agent = {"@type": "prov:SoftwareAgent", "prov:label": f"StyleAR toolkit {version}".strip()}
    recipe = f"recipe with sha256 {corpus.manifest['recipe_sha256']}, seed {corpus.recipe.seed}"
    activities = [
        {
            "@type": "prov:Activity",
            "prov:label": "build of the corpus",
            "prov:used": recipe,
            "prov:wasAssociatedWith": agent,
        }
    ]
    for model, count, _ in shares(facts.models):
        weights = f", weights with sha256 {model[2]}" if model[2] else ""
        activities.append(
            {
                "@type": "prov:Activity",
                "prov:label": f"synthesis of {count} pictures",
                "prov:used": describe_model(model) + weights,
                "prov:wasAssociatedWith": agent,
            }
        )
    return activities


def describe_collection(facts: Facts) -> str:
    """Where pictures come from and what was left out."""
    kinds = ", ".join(f"{count} from {kind}" for kind, count, _ in shares(facts.sources))
    sentences = [f"Raw pictures: {kinds or 'none'}."]
    if "urls" in facts.sources:
        left_out = ", ".join(f"{reason} {count}" for reason, count in facts.opted_out.items())
        sentences.append(
            "Downloads whose server reserves its rights (X-Robots-Tag, TDMRep) are left out:"
            f" {left_out or 'none here'}."
        )
    if facts.num_stylized:
        sentences.append(
            "Stylized pictures were synthesised from prompts and style references; the references are not"
            " part of the data."
        )
    return " ".join(sentences)


def collection_types(facts: Facts) -> list[str]:
    """Types of collection in the words of the RAI vocabulary."""
    types = {COLLECTION_TYPES.get(kind, SECONDARY) for kind in facts.sources}
    return sorted(types | ({SOFTWARE} if facts.num_stylized else set()))


def describe_processing(corpus: ExportedCorpus) -> list[str]:
    """What was done to pictures and which pairs were dropped."""
    image = corpus.recipe.image
    sentences = [
        f"Pictures: fit {image.fit}, {image.size} pixels a side, stored as {image.format}."
    ]
    for stage in ("fetch", "synthesize", "filter", "mix"):
        dropped = corpus.drop_counts(stage)
        if dropped:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items()))
            sentences.append(f"Dropped by {stage}: {reasons}.")
    return sentences


def describe_biases(facts: Facts) -> list[str]:
    """The sources and styles that are over-represented."""
    sentences = []
    for what, counts in (("styles", facts.styles), ("hosts", facts.domains)):
        if counts:
            most = ", ".join(f"{name} {share:.1%}" for name, _, share in shares(counts, MOST))
            sentences.append(f"{len(counts)} {what}; the most frequent: {most}.")
    return sentences


def describe_limits(facts: Facts) -> list[str]:
    """The limitations: metadata that the corpus lacks."""
    unknown = facts.licences.get(None, 0)
    limits = [f"For {unknown} of {facts.num_raw} raw pairs the source states no licence."]
    return limits + (["Stylized pictures have the faults of their models."] if facts.styles else [])
