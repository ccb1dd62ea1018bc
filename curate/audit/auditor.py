"""The audit: proves a finished corpus from its bytes, its tables and its manifest. It changes nothing.

Every file is hashed again; every key is followed from raw/ and stylized/ through the verdicts into the
training shards; counts, ratio and splits are computed anew.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stylear.console import ByteBar
from stylear.curate.audit.manifest import build_manifest, corpus_files
from stylear.curate.audit.tables import PREFERENCES, ROW, Columns, Tables, equal
from stylear.curate.corpus import parquet, shards
from stylear.curate.corpus.columns import NONE, Index, Texts, hash_identities, to_bytes, to_objects
from stylear.curate.corpus.layout import KINDS, LEDGER, MANIFEST, MIX, RECIPE, VERDICTS, score_paths
from stylear.curate.corpus.ledger import Ledger, flatten_settings
from stylear.curate.corpus.split import split_of
from stylear.curate.corpus.storage import FileInfo
from stylear.curate.corpus.wids import WIDS, shard_entry
from stylear.curate.mix.mixing import SPLITS
from stylear.errors import AuditFailed, CorpusError, StylearError

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

INDEXED = ("train/", "val/", "preferences/")  # folders with a wids index, which has MD5
COMPARED = (  # of the manifest, with what the tables give now
    "format", "name", "seed", "recipe_sha256", "stages", "counts", "ratio", "splits", "warnings",
)  # fmt: skip
SHOWN = 3  # differences in the error's message
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be: `kind` (missing, changed, keys, split, ...) at `where`."""

    kind: str
    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What was looked at, and every difference."""

    corpus: Path
    files: int
    bytes: int
    pairs: int  # in raw/ and stylized/, dropped ones too
    samples: int  # in train/ and val/
    manifest_sha256: str
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...] = ()  # what the corpus lacks of what was asked; no fault of its files

    @property
    def passed(self) -> bool:
        return not self.differences

    def require(self) -> AuditResult:
        """The result itself. Raises AuditFailed when something differs."""
        if self.passed:
            return self
        told = "; ".join(str(difference) for difference in self.differences[:SHOWN])
        more = len(self.differences) - SHOWN
        raise AuditFailed(
            f"{self.corpus}: {told}{f'; and {more} more' if more > 0 else ''}",
            hint="`stylear curate audit CORPUS --json` lists everything; `stylear curate run RECIPE --out"
            " CORPUS` rebuilds damaged files, with --redo STAGE it builds a stage and what follows again",
        )

    def rows(self) -> list[dict[str, Any]]:
        """For a table: every difference, or what was found to be right."""
        if self.differences:
            return [asdict(difference) for difference in self.differences]
        told = {"files": self.files, "bytes": self.bytes, "pairs": self.pairs}
        return [
            {**told, "samples": self.samples, "manifest": self.manifest_sha256[:16], "ok": True}
        ]

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        values = {n: getattr(self, n) for n in ("files", "bytes", "pairs", "samples")}
        return {
            "corpus": str(self.corpus),
            "passed": self.passed,
            "manifest_sha256": self.manifest_sha256,
            **values,
            "warnings": list(self.warnings),
            "differences": [asdict(difference) for difference in self.differences],
        }


def audit(corpus: Path) -> AuditResult:
    """Compare a corpus with its manifest and with itself.

    Raises CorpusError when there is no manifest: the corpus was never finished.
    """
    from stylear.curate.recipe import load_recipe

    manifest, sha256 = read_manifest(corpus)
    there: dict[str, FileInfo] = {}
    found = list(compare_files(corpus, manifest["files"], there))
    pairs = samples = 0
    if not any(one.kind == "missing" for one in found):
        rows, problems = guarded(lambda: Tables(corpus), "tables")
        recipe, more = guarded(lambda: load_recipe(corpus / RECIPE), RECIPE)
        uncounted, broken = guarded(lambda: list(conserved(corpus)), LEDGER)
        found += [*problems, *more, *(uncounted or broken)]
        if rows is not None:
            pairs = len(rows.made["key"])
            samples = sum(len(rows.splits[split]["key"]) for split in SPLITS)
            if recipe is not None:
                for check in (compare_keys, compare_splits, compare_ratio, compare_preferences):
                    found += check(rows, recipe)
        if recipe is not None:
            found += compare_scores(corpus, recipe)
        found += compare_shards(corpus)
        found += compare_indexes(corpus, there)
        if not (problems or more or broken):
            found += compare_counts(corpus, manifest)
    return AuditResult(
        corpus=corpus,
        files=len(manifest["files"]),
        bytes=sum(info["bytes"] for info in manifest["files"].values()),
        pairs=pairs,
        samples=samples,
        manifest_sha256=sha256,
        differences=tuple(found),
        warnings=tuple(manifest.get("warnings", ())),
    )


def guarded(read: Callable[[], T], where: str) -> tuple[T | None, list[Difference]]:
    """What `read` gives, or the difference that stopped it."""
    try:
        return read(), []
    except StylearError as error:
        return None, [Difference("unreadable", where, "what can be read", error.message)]


def read_manifest(corpus: Path) -> tuple[dict[str, Any], str]:
    """The manifest and its own hash. Raises CorpusError when there is none or it is damaged."""
    path = corpus / MANIFEST
    try:
        data = path.read_bytes()
        manifest = json.loads(data)
        for name, info in manifest["files"].items():
            if not (isinstance(info["bytes"], int) and isinstance(info["sha256"], str)):
                raise TypeError(f"{name}: {info}")
    except FileNotFoundError:
        raise CorpusError(
            f"{corpus}: expected a finished corpus, found no {MANIFEST}",
            hint="run `stylear curate run RECIPE --out CORPUS` to the end",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(
            f"{path}: expected a manifest, found: {error!r}",
            hint="`stylear curate run RECIPE --out CORPUS` writes it again",
        ) from error
    return manifest, hashlib.sha256(data).hexdigest()


def compare_files(
    corpus: Path, files: Mapping[str, Mapping[str, Any]], infos: dict[str, FileInfo]
) -> Iterator[Difference]:
    """Files that are missing, too many, or of other bytes than the manifest says.

    The hashes taken on the way are put into `infos`.
    """
    there = set(corpus_files(corpus))
    for name in sorted(set(files) - there):
        yield Difference("missing", name, "the file", "nothing")
    for name, found in hash_files(corpus, {n: i for n, i in files.items() if n in there}):
        infos[name], info = found, files[name]
        if found.bytes != info["bytes"]:
            yield Difference("changed", name, f"{info['bytes']} bytes", f"{found.bytes}")
        elif found.sha256 != info["sha256"]:
            yield Difference("changed", name, f"sha256 {info['sha256'][:12]}", found.sha256[:12])
    for name in sorted(there - set(files)):
        yield Difference("extra", name, "no such file", "one the manifest does not know")


def hash_files(
    corpus: Path, files: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, FileInfo]]:
    """The sizes and hashes of files as they are now, by name; a bar shows how far it is."""
    with ByteBar("audit", sum(int(info["bytes"]) for info in files.values())) as bar:
        for name, info in sorted(files.items()):
            indexed = name.endswith(".tar") and name.startswith(INDEXED)
            yield name, FileInfo.of(corpus / name, md5=indexed)
            bar.advance_bytes(int(info["bytes"]))


def compare_keys(rows: Tables, recipe: Recipe) -> Iterator[Difference]:
    """Every key exactly once on each station of its way, and no verdict that changed."""
    made, verdicts, mixed = rows.made, rows.verdicts, rows.mixed
    index = Index(made["key"])
    yield from same_keys("raw, stylized", made["key"], made["key"])
    yield from same_keys(VERDICTS, made["key"], verdicts["key"])
    yield from same_keys(MIX, verdicts["key"][verdicts["kept"]], mixed["key"])
    for split in SPLITS:
        there = rows.splits[split]
        yield from same_keys(split, mixed["key"][equal(mixed["split"], split)], there["key"])
        origin = index.find(there["key"])
        other = (origin >= 0) & (made[ROW][origin] != there[ROW])
        for key in there["key"][other]:
            yield Difference("lineage", f"{split} {key.decode()}", "its first row", "another")
    yield from find_modified_details(made, verdicts, index)
    for where, table in ((VERDICTS, verdicts), (MIX, mixed)):
        nothing = table["reason"].fill_null("")
        for key in table["key"][~table["kept"] & equal(nothing, "")]:
            yield Difference("verdict", f"{where} {key.decode()}", "a reason", "none")


def find_modified_details(made: Columns, verdicts: Columns, index: Index) -> Iterator[Difference]:
    """Drops of earlier stages that have another reason now, and parents that are no raw pairs."""
    at = Index(verdicts["key"]).find(made["key"])
    reasons, first = hash_identities(verdicts["reason"]), hash_identities(made["reason"])
    judged = np.flatnonzero((at >= 0) & ~made["kept"])
    other = judged[reasons[at[judged]] != first[judged]]
    children = np.flatnonzero(made["parent"].is_valid().to_numpy(zero_copy_only=False))
    parent = index.find(to_bytes(made["parent"].take(children)))
    raw = equal(made["kind"], "raw")
    orphans = children[~((parent >= 0) & raw[parent])] if len(raw) else children
    changed, lost = set(other.tolist()), set(orphans.tolist())
    for place in sorted(changed | lost):
        key = made["key"][place].decode()
        if place in changed:
            now = verdicts["reason"][int(at[place])].as_py()
            yield Difference("verdict", key, f"{made['reason'][place].as_py()}", f"{now}")
        if place in lost:
            yield Difference("lineage", key, f"a raw pair {made['parent'][place].as_py()}", "none")


def same_keys(where: str, expected: Texts, found: Texts) -> Iterator[Difference]:
    """Keys that are lost, invented or there twice."""
    for key in np.setdiff1d(expected, found):
        yield Difference("keys", where, f"key {key.decode()}", "none")
    for key in np.setdiff1d(found, expected):
        yield Difference("keys", where, f"no key {key.decode()}", "one")
    repeated = found[Index(found).repeated()]
    for key, more in zip(*np.unique(repeated, return_counts=True), strict=True):
        yield Difference("keys", where, f"key {key.decode()} once", f"{more + 1} times")


def compare_splits(rows: Tables, recipe: Recipe) -> Iterator[Difference]:
    """Contents and references in the split of their hash; no content, reference or picture in both."""
    seen: dict[str, dict[str, Texts]] = {}
    for split in SPLITS:
        there = rows.splits[split]
        found = {name: np.unique(to_bytes(there[name])) for name in ("content", "reference")}
        found["picture"] = np.unique(there["picture"][equal(there["kind"], "raw")])
        seen[split] = {name: column[column != NONE] for name, column in found.items()}
    for name in ("content", "reference", "picture"):
        for value in np.intersect1d(seen["train"][name], seen["val"][name]):
            yield Difference("split", f"{name} {value.decode()}", "one split", "train and val")
    for split in SPLITS:
        for name in ("content", "reference"):
            for value in seen[split][name]:
                right = split_of(value.decode(), recipe.seed, recipe.mix.val_fraction)
                if right != split:
                    yield Difference("split", f"{name} {value.decode()}", right, split)


def compare_ratio(rows: Tables, recipe: Recipe) -> Iterator[Difference]:
    """Not more raw pairs than asked, and none left out for the ratio while there are fewer."""
    out = Index(rows.made["key"]).find(rows.mixed["key"][equal(rows.mixed["reason"], "ratio")])
    left_out = Counter(
        split_of(content, recipe.seed, recipe.mix.val_fraction)
        for content in to_objects(rows.made["content"].take(out[out >= 0]))
    )
    for split in SPLITS:
        kind = rows.splits[split]["kind"]
        raw, stylized = (int(equal(kind, name).sum()) for name in KINDS)
        wanted = math.floor(recipe.mix.raw_per_stylized * stylized + 0.5)
        if stylized and raw > wanted:
            yield Difference("ratio", split, f"at most {wanted} raw pairs", f"{raw}")
        elif left_out[split] and raw < wanted:
            many = f"{raw}, and {left_out[split]} left out for the ratio"
            yield Difference("ratio", split, f"{wanted} raw pairs", many)


def compare_preferences(rows: Tables, recipe: Recipe) -> Iterator[Difference]:
    """Chosen pairs are in train; both sides are candidates of one group and of different rank."""
    made, groups = rows.preferences, rows.verdicts["group"]
    train, verdicts = Index(rows.splits["train"]["key"]), Index(rows.verdicts["key"])
    there = train.find(to_bytes(made["chosen"]))
    sides = [verdicts.find(to_bytes(made[side])) for side in ("chosen", "rejected")]
    for place, columns in enumerate(
        zip(*(to_objects(made[name]) for name in PREFERENCES), strict=True)
    ):
        row = dict(zip(PREFERENCES, columns, strict=True))
        where = f"preferences {row['key']}"
        if there[place] < 0:
            yield Difference("split", where, "a chosen pair of train", f"{row['chosen']}")
        chosen, rejected = (
            groups[int(side[place])].as_py() if side[place] >= 0 else None for side in sides
        )
        if chosen is None or chosen != rejected:
            yield Difference("lineage", where, "candidates of one group", f"{chosen}, {rejected}")
        if not row["chosen_score"] > row["rejected_score"]:
            yield Difference(
                "verdict", where, "a higher chosen score", f"a margin of {row['margin']}"
            )


def compare_shards(corpus: Path) -> Iterator[Difference]:
    """Every tar has exactly the images of its table."""
    for folder in (*KINDS, *SPLITS):
        for path in shards.shard_paths(corpus / folder):
            try:
                for _ in shards.read_shard(path):
                    pass
            except CorpusError as error:
                yield Difference(
                    "shard", f"{folder}/{path.name}", "what its table says", error.message
                )


def compare_scores(corpus: Path, recipe: Recipe) -> Iterator[Difference]:
    """All tables of a scorer are of one measurement: one model, its weights, precision and preprocessing."""
    from stylear.curate.score.passes import list_scorers
    from stylear.curate.score.table import shared_metadata

    for spec in list_scorers(recipe):
        first: dict[str, Any] | None = None
        for path in score_paths(corpus, spec.name):
            where = path.relative_to(corpus).as_posix()
            found, problems = guarded(partial(parquet.read_table, path, ["key"]), where)
            yield from problems
            if found is None:
                continue
            told = shared_metadata(found)
            first = first or told
            for name in sorted(set(first) | set(told)):
                if first.get(name) != told.get(name):
                    yield Difference(
                        "score", f"{where} {name}", f"{first.get(name)}", f"{told.get(name)}"
                    )


def compare_indexes(corpus: Path, infos: Mapping[str, FileInfo]) -> Iterator[Difference]:
    """The wids indexes list every shard as it is, in order, and nothing else."""
    for place in (*SPLITS, "preferences"):
        where = f"{place}/{WIDS}"
        expected, listed = [], []
        try:
            for path in shards.shard_paths(corpus / place):
                samples = parquet.read_table(path.with_suffix(".parquet"), ["key"]).num_rows
                info = infos.get(f"{place}/{path.name}") or FileInfo.of(path, md5=True)
                expected.append(shard_entry(info, samples))
            listed = json.loads((corpus / where).read_text("utf-8"))["shardlist"]
            urls = [entry["url"] for entry in listed]
        except (OSError, ValueError, KeyError, TypeError, CorpusError) as error:
            yield Difference("index", where, "a wids index", f"{error!r}")
            continue
        if urls != (tars := [entry["url"] for entry in expected]):
            yield Difference("index", where, f"{tars}", f"{urls}")
            continue
        for old, now in zip(listed, expected, strict=True):
            wrong = {name: old.get(name) for name in now if old.get(name) != now[name]}
            if wrong:
                right = {name: now[name] for name in wrong}
                yield Difference("index", f"{where} {now['url']}", f"{right}", f"{wrong}")


def conserved(corpus: Path) -> Iterator[Difference]:
    """In every committed unit: what went in is what was kept and what was dropped."""
    ledger = Ledger(corpus)
    for stage in ledger.stages():
        for entry in ledger.entries(stage):
            out = entry.kept + sum(entry.dropped.values())
            if out != entry.rows_in:
                yield Difference(
                    "conservation", f"{stage} {entry.unit}", f"{entry.rows_in} pairs", f"{out}"
                )


def compare_counts(corpus: Path, manifest: Mapping[str, Any]) -> Iterator[Difference]:
    """Counts, ratio and splits of the manifest against those that the tables give now."""
    try:
        now = build_manifest(corpus)
    except StylearError as error:
        yield Difference("counts", MANIFEST, "counts of the tables", error.message)
        return
    for name in (
        "format",
        "name",
        "seed",
        "recipe_sha256",
        "stages",
        "counts",
        "ratio",
        "splits",
        "warnings",
    ):
        old, new = flatten_settings(manifest.get(name)), flatten_settings(now[name])
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                where = f"{MANIFEST} {name}{f'.{key}' if key else ''}"
                yield Difference("counts", where, old.get(key, "nothing"), new.get(key, "nothing"))
