"""The audit: proves a finished corpus from its bytes, its tables and its manifest. It changes nothing.

Every file is hashed again, every member of every tar is compared with its table, every key is followed from
raw/ and stylized/ through the verdicts into the training shards; counts, ratio and splits are computed again.
`CLAIMS` says what each check proves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.audit.absence import check_absence
from stylear.curate.audit.conservation import check_conservation, check_stages
from stylear.curate.audit.counts import check_manifest
from stylear.curate.audit.difference import read_or_report
from stylear.curate.audit.files import check_files, check_shards, read_manifest, tar_folder
from stylear.curate.audit.indexes import check_indexes
from stylear.curate.audit.pairs import Placement, check_pairs
from stylear.curate.audit.preferences import check_preferences
from stylear.curate.audit.provenance import check_lineage, check_opt_outs
from stylear.curate.audit.result import AuditResult, Findings
from stylear.curate.audit.rules import check_rules, explain_no_comparison
from stylear.curate.audit.scores import check_scores
from stylear.curate.audit.settings import check_committed, check_recipe
from stylear.curate.audit.splits import (
    check_near_duplicates,
    check_ratio,
    check_splits,
    read_removed,
)
from stylear.curate.audit.tables import PREFERENCES, PairIndex, require_shapes
from stylear.curate.audit.tars import Sampling, TarResult
from stylear.curate.corpus.layout import LEDGER, RECIPE, TOMBSTONES, score_paths
from stylear.curate.corpus.parquet import count_rows
from stylear.curate.corpus.split import SPLITS
from stylear.curate.corpus.tombstones import read_tombstones

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

FULL = Sampling()


def audit(corpus: Path, sampling: Sampling = FULL, workers: int = 0) -> AuditResult:
    """Compare a corpus with its manifest and with itself.

    `sampling` gives the share of each shard's images to read; tables, captions, records and all other files
    are always read in full. `workers` 0 means one thread for each core, or one process in a large corpus.
    Checks that need a missing file or an unreadable table are not run. Raises
    CorpusError if there is no manifest: the corpus was never finished.
    """
    manifest, sha256 = read_manifest(corpus)
    results: dict[str, TarResult] = {}
    findings = Findings()
    findings.record(
        "files",
        f"{len(manifest['files'])} files",
        check_files(corpus, manifest["files"], results, sampling, workers),
    )
    pairs = samples = 0
    if not any(difference.kind == "missing" for difference in findings.differences):
        pairs, samples = check_contents(corpus, manifest, results, findings)
    return AuditResult(
        corpus=corpus,
        files=len(manifest["files"]),
        bytes=sum(info["bytes"] for info in manifest["files"].values()),
        pairs=pairs,
        samples=samples,
        manifest_sha256=sha256,
        checks=tuple(findings.checks),
        differences=tuple(findings.differences),
        warnings=tuple(manifest.get("warnings", ())),
        not_examined=tuple(list_not_examined(results, sampling)),
    )


def list_not_examined(results: Mapping[str, TarResult], sampling: Sampling) -> Iterator[str]:
    """What the audit did not read, in words."""
    tars = [result for name, result in results.items() if tar_folder(name) is not None]
    samples = sum(result.samples for result in tars)
    if not sampling.is_full:
        left = samples - sum(result.examined for result in tars)
        yield f"the images of {left} of {samples} samples (seed {sampling.seed})"
        yield f"sha256 and md5 of {sum(result.info is None for result in tars)} tars"
    if not sampling.decode:
        yield "whether images can be decoded (--decode)"


def check_contents(
    corpus: Path, manifest: dict[str, Any], results: dict[str, TarResult], findings: Findings
) -> tuple[int, int]:
    """Run every check except the one of the files; returns the numbers of pairs and samples, 0 if unknown."""
    from stylear.curate.recipe import load_recipe

    _, bad_tables = read_or_report(lambda: require_shapes(corpus), "tables")
    recipe, bad_recipe = read_or_report(lambda: load_recipe(corpus / RECIPE), RECIPE)
    units, bad_ledger = read_or_report(lambda: list(check_stages(corpus)), LEDGER)
    unreadable = [*bad_tables, *bad_recipe, *bad_ledger]
    number = sum(1 for name in manifest["files"] if name.endswith(".parquet"))
    findings.record("tables", f"{number} tables", unreadable)
    if units is not None:
        entries = sum(1 for name in manifest["files"] if name.startswith(f"{LEDGER}/"))
        findings.record("stages", f"{entries} ledger entries", units)
    if not unreadable:
        findings.record("conservation", "every table of pairs", check_conservation(corpus))
    pairs = samples = 0
    if not bad_tables:
        pairs, samples = check_tables(corpus, recipe, findings)
    if recipe is not None:
        from stylear.curate.score.passes import list_scorers

        number = sum(len(score_paths(corpus, spec.name)) for spec in list_scorers(recipe))
        findings.record("scores", f"{number} score tables", check_scores(corpus, recipe))
        settings = chain(check_recipe(corpus, recipe), check_committed(corpus, manifest["files"]))
        findings.record("recipe", RECIPE, settings)
    if not unreadable and recipe is not None:
        reason, unknown = read_or_report(lambda: explain_no_comparison(corpus, recipe), TOMBSTONES)
        examined = f"{pairs} pairs" if reason is None else f"not compared: {reason}"
        rules = check_rules(corpus, recipe) if reason is None and not unknown else unknown
        findings.record("rules", examined, rules)
    if not unreadable:
        tombstones, bad_tombstones = read_or_report(lambda: read_tombstones(corpus), TOMBSTONES)
        differences = bad_tombstones if tombstones is None else check_absence(corpus, tombstones)
        number = 0 if tombstones is None else len(tombstones.keys)
        findings.record("forgotten", f"{number} tombstones", differences)
    tars = {name: result for name, result in results.items() if tar_folder(name) is not None}
    number = sum(result.examined for result in tars.values())
    findings.record(
        "shards", f"{len(tars)} tars, {number} samples", check_shards(sorted(tars.items()))
    )
    findings.record("indexes", f"{len(SPLITS) + 1} indexes", check_indexes(corpus, results))
    if not unreadable:
        findings.record(
            "manifest", "counts of every stage and split", check_manifest(corpus, manifest)
        )
    return pairs, samples


def check_tables(corpus: Path, recipe: Recipe | None, findings: Findings) -> tuple[int, int]:
    """Run the checks that follow pairs through the tables; returns the numbers of pairs and samples."""
    index = PairIndex(corpus)
    placement, pairs = Placement(index), len(index)
    samples = sum(count_rows(corpus / split) for split in SPLITS)
    if recipe is None:
        return pairs, samples
    stylized = int(index.stylized.sum())
    findings.record("pairs", f"{pairs} pairs", check_pairs(corpus, index, placement))
    findings.record("opt-outs", f"{pairs - stylized} raw pairs", check_opt_outs(corpus))
    findings.record("lineage", f"{stylized} stylized pairs", check_lineage(corpus, recipe))
    crossing = chain(
        check_splits(corpus, recipe, index, placement),
        check_near_duplicates(corpus, recipe, index, placement),
    )
    findings.record("splits", f"{samples} samples", crossing)
    removed, _ = read_or_report(lambda: read_removed(corpus), LEDGER)
    ratio = check_ratio(corpus, recipe, placement, removed or {})
    findings.record("ratio", f"{len(SPLITS)} splits", ratio)
    number = count_rows(corpus / PREFERENCES)
    preferences = check_preferences(corpus, index, placement)
    findings.record("preferences", f"{number} preference pairs", preferences)
    return pairs, samples
