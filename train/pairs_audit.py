"""The audit of a folder of on-policy pairs: proves it from its bytes, its rows and its manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylear.curate.corpus.object_store import corpus_path
from stylear.curate.corpus.records import canonical_json
from stylear.curate.corpus.storage import FileInfo
from stylear.errors import AuditFailed, StylearError
from stylear.pair import digest
from stylear.train.pairs import FOLDER, MANIFEST, describe_corpus, read_manifest
from stylear.train.preferences import read_preferences
from stylear.weights.files import read_json

INPUTS = ("settings", "policy_hash", "vq_sha256", "corpora", "scorers")
SHOWN = 3  # differences in the error's message


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference from what was expected, at a file or a pair."""

    place: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.place}: expected {self.expected}, found {self.found}"


def audit(folder: Path, corpora: tuple[str, ...] = ()) -> dict[str, Any]:
    """Compare a folder of pairs with its manifest, with itself, and with the corpora it was made from.

    Every tar is hashed again; every pair has two different images, scores that differ by its margin and a
    margin that the settings allow; the inputs give the key. With `corpora`, their manifests are those that
    the pairs were made from. Returns the numbers of what was examined. Raises AuditFailed naming what
    differs, CorpusError if the pairs are unfinished.
    """
    manifest = read_manifest(folder)
    differences = [*check_manifest(folder, manifest), *check_corpora(manifest, corpora)]
    pairs = 0
    keys: set[str] = set()
    for name, recorded in manifest["files"].items():
        shard_differences, rows = check_shard(folder, name, recorded, manifest)
        differences += shard_differences
        pairs += len(rows)
        repeated = keys & {row["key"] for row in rows}
        differences += [Difference(key, "one pair of this key", "several") for key in repeated]
        keys |= {row["key"] for row in rows}
    if pairs != manifest["pairs"]:
        differences.append(Difference(MANIFEST, f"{manifest['pairs']} pairs", str(pairs)))
    if differences:
        more = len(differences) - SHOWN
        raise AuditFailed(
            f"{folder}: {'; '.join(map(str, differences[:SHOWN]))}"
            f"{f'; and {more} more' if more > 0 else ''}",
            hint="remove damaged shards with their .json and run the same `stylear train pairs` again",
        )
    return {"folder": str(folder), "key": manifest["key"], "files": len(manifest["files"])} | {
        "pairs": pairs,
        "policy_hash": manifest["policy_hash"],
        "scorers": manifest["scorers"],
    }


def check_manifest(folder: Path, manifest: dict[str, Any]) -> Iterator[Difference]:
    """The key is that of the inputs, and there is no other tar."""
    key = digest("on-policy pairs", canonical_json({name: manifest.get(name) for name in INPUTS}))
    if key != manifest["key"]:
        yield Difference(MANIFEST, f"inputs with key {manifest['key']}", f"key {key}")
    for path in sorted((folder / FOLDER).glob("*.tar")):
        if f"{FOLDER}/{path.name}" not in manifest["files"]:
            yield Difference(f"{FOLDER}/{path.name}", "no such file in the manifest", "a file")


def check_corpora(manifest: dict[str, Any], corpora: tuple[str, ...]) -> Iterator[Difference]:
    """The corpora are those that the pairs were made from."""
    known = {corpus["sha256"] for corpus in manifest["corpora"]}
    for corpus in corpora:
        sha256 = describe_corpus(corpus_path(corpus))["sha256"]
        if sha256 not in known:
            yield Difference(corpus, f"a corpus with sha256 {' or '.join(sorted(known))}", sha256)


def check_shard(
    folder: Path, name: str, recorded: dict[str, Any], manifest: dict[str, Any]
) -> tuple[list[Difference], list[dict[str, Any]]]:
    """Differences of one shard, and its rows."""
    path, differences = folder / name, []
    try:
        info = FileInfo.of(path)
        if (info.bytes, info.sha256) != (recorded["bytes"], recorded["sha256"]):
            differences.append(
                Difference(name, f"sha256 {recorded['sha256'][:12]}", f"{info.sha256[:12]}")
            )
        note = read_json(path.with_suffix(".json"))
        written = [row for row, _ in read_preferences(path)]
    except StylearError as error:
        return [*differences, Difference(name, "a readable shard", error.message)], []
    rows: list[dict[str, Any]] = note["rows"]
    if note["key"] != manifest["key"]:
        differences.append(Difference(name, f"key {manifest['key']}", str(note["key"])))
    if written != rows:
        differences.append(Difference(name, "the rows of its note", "others"))
    least = manifest["settings"]["margin"]
    for row in rows:
        lead = round(row["chosen_score"] - row["rejected_score"], 6)
        if not (row["margin"] == lead >= least and lead > 0):
            expected = f"a margin of {least} or more that is the difference of the scores"
            differences.append(Difference(row["key"], expected, json.dumps(row["margin"])))
    return differences, rows
