"""The audit: proves a finished corpus from its bytes, its tables and its manifest. It changes nothing.

Every file is hashed again; every key is followed from raw/ and stylized/ through the verdicts into the
training shards; counts, ratio and splits are computed anew.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from curate import shards
from curate.ledger import Ledger, flat
from curate.manifest import build_manifest, corpus_files
from curate.mix import SPLITS, WIDS, shard_entry
from curate.split import split_of
from curate.stage import KINDS, LEDGER, MANIFEST, MIX, RECIPE, VERDICTS
from curate.storage import FileInfo
from curate.tables import Tables
from stylear.errors import AuditFailed, CorpusError, StylearError

if TYPE_CHECKING:
    from curate.recipe import Recipe

INDEXED = ("train/", "val/", "preferences/")  # folders with a wids index, which has MD5
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
            hint="`stylear curate audit CORPUS --json` lists everything; `stylear curate run` mends files"
            " that were damaged, `--redo STAGE` makes a stage again",
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
            "differences": [asdict(difference) for difference in self.differences],
        }


def audit(corpus: Path) -> AuditResult:
    """Compare a corpus with its manifest and with itself.

    Raises CorpusError when there is no manifest: the corpus was never finished.
    """
    from curate.recipe import load_recipe

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
            pairs, samples = len(rows.made), sum(len(rows.splits[split]) for split in SPLITS)
            if recipe is not None:
                for check in (compare_keys, compare_splits, compare_ratio, compare_preferences):
                    found += check(rows, recipe)
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
            hint="run `stylear curate run` again; it writes the manifest anew",
        ) from error
    return manifest, hashlib.sha256(data).hexdigest()


def compare_files(
    corpus: Path, files: Mapping[str, Mapping[str, Any]], infos: dict[str, FileInfo]
) -> Iterator[Difference]:
    """Files that are missing, too many, or of other bytes than the manifest says.

    The hashes taken on the way are put into `infos`.
    """
    there = set(corpus_files(corpus))
    for name, info in sorted(files.items()):
        if name not in there:
            yield Difference("missing", name, "the file", "nothing")
            continue
        indexed = name.endswith(".tar") and name.startswith(INDEXED)
        found = infos[name] = FileInfo.of(corpus / name, md5=indexed)
        if found.bytes != info["bytes"]:
            yield Difference("changed", name, f"{info['bytes']} bytes", f"{found.bytes}")
        elif found.sha256 != info["sha256"]:
            yield Difference("changed", name, f"sha256 {info['sha256'][:12]}", found.sha256[:12])
    for name in sorted(there - set(files)):
        yield Difference("extra", name, "no such file", "one the manifest does not know")


def compare_keys(rows: Tables, recipe: Recipe) -> Iterator[Difference]:
    """Every key exactly once on each station of its way, and no verdict that changed."""
    made = {row["key"]: row for row in rows.made}
    verdicts = {row["key"]: row for row in rows.verdicts}
    mixed = {row["key"]: row for row in rows.mixed}
    yield from same_keys("raw, stylized", made, [row["key"] for row in rows.made])
    yield from same_keys(VERDICTS, made, [row["key"] for row in rows.verdicts])
    kept = [key for key, row in verdicts.items() if row["kept"]]
    yield from same_keys(MIX, kept, [row["key"] for row in rows.mixed])
    for split in SPLITS:
        wanted = [key for key, row in mixed.items() if row["split"] == split]
        yield from same_keys(split, wanted, [row["key"] for row in rows.splits[split]])
        for row in rows.splits[split]:
            origin = made.get(row["key"])
            if origin is not None and dict(origin) != dict(row):
                yield Difference("lineage", f"{split} {row['key']}", "its first row", "another")
    for key, row in made.items():
        judged = verdicts.get(key)
        if judged is not None and not row["kept"] and judged["reason"] != row["reason"]:
            yield Difference("verdict", key, f"{row['reason']}", f"{judged['reason']}")
        parent = made.get(row["parent"]) if row["parent"] is not None else None
        if row["parent"] is not None and (parent is None or parent["kind"] != "raw"):
            yield Difference("lineage", key, f"a raw pair {row['parent']}", "none")
    for where, table in ((VERDICTS, rows.verdicts), (MIX, rows.mixed)):
        for row in table:
            if not row["kept"] and not row["reason"]:
                yield Difference("verdict", f"{where} {row['key']}", "a reason", "none")


def same_keys(where: str, expected: Iterable[str], found: list[str]) -> Iterator[Difference]:
    """Keys that are lost, invented or there twice."""
    wanted, counts = set(expected), Counter(found)
    for key in sorted(wanted - set(counts)):
        yield Difference("keys", where, f"key {key}", "none")
    for key in sorted(set(counts) - wanted):
        yield Difference("keys", where, f"no key {key}", "one")
    for key, count in sorted(counts.items()):
        if count > 1:
            yield Difference("keys", where, f"key {key} once", f"{count} times")


def compare_splits(rows: Tables, recipe: Recipe) -> Iterator[Difference]:
    """Contents and references in the split of their hash; no content, reference or picture in both."""
    identities: dict[str, dict[str, set[str]]] = {}
    for split in SPLITS:
        seen = identities.setdefault(
            split, {"content": set(), "reference": set(), "picture": set()}
        )
        for row in rows.splits[split]:
            seen["content"].add(row["content"])
            if row["reference"] is not None:
                seen["reference"].add(row["reference"])
            if row["kind"] == "raw":
                seen["picture"].add(row["image_sha256"])
    for name in ("content", "reference", "picture"):
        for value in sorted(identities["train"][name] & identities["val"][name]):
            yield Difference("split", f"{name} {value}", "one split", "train and val")
    for split in SPLITS:
        for name in ("content", "reference"):
            for value in sorted(identities[split][name]):
                right = split_of(value, recipe.seed, recipe.mix.val_fraction)
                if right != split:
                    yield Difference("split", f"{name} {value}", right, split)


def compare_ratio(rows: Tables, recipe: Recipe) -> Iterator[Difference]:
    """Not more raw pairs than asked, and none left out for the ratio while there are fewer."""
    contents = {row["key"]: row["content"] for row in rows.made}
    left_out = Counter(
        split_of(contents[row["key"]], recipe.seed, recipe.mix.val_fraction)
        for row in rows.mixed
        if row["reason"] == "ratio" and row["key"] in contents
    )
    for split in SPLITS:
        kinds = Counter(row["kind"] for row in rows.splits[split])
        wanted = math.floor(recipe.mix.raw_per_stylized * kinds["stylized"] + 0.5)
        if kinds["stylized"] and kinds["raw"] > wanted:
            yield Difference("ratio", split, f"at most {wanted} raw pairs", f"{kinds['raw']}")
        elif left_out[split] and kinds["raw"] < wanted:
            many = f"{kinds['raw']}, and {left_out[split]} left out for the ratio"
            yield Difference("ratio", split, f"{wanted} raw pairs", many)


def compare_preferences(rows: Tables, recipe: Recipe) -> Iterator[Difference]:
    """Chosen pairs are in train; both sides are candidates of one group and of different rank."""
    train = {row["key"] for row in rows.splits["train"]}
    groups = {row["key"]: row["group"] for row in rows.verdicts}
    for row in rows.preferences:
        where = f"preferences {row['key']}"
        if row["chosen"] not in train:
            yield Difference("split", where, "a chosen pair of train", f"{row['chosen']}")
        chosen, rejected = groups.get(row["chosen"]), groups.get(row["rejected"])
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


def compare_indexes(corpus: Path, infos: Mapping[str, FileInfo]) -> Iterator[Difference]:
    """The wids indexes list every shard as it is, in order, and nothing else."""
    for place in (*SPLITS, "preferences"):
        where = f"{place}/{WIDS}"
        expected, listed = [], []
        try:
            for path in shards.shard_paths(corpus / place):
                samples = shards.read_table(path.with_suffix(".parquet"), ["key"]).num_rows
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
    for name in ("format", "name", "seed", "recipe_sha256", "stages", "counts", "ratio", "splits"):
        old, new = flat(manifest.get(name)), flat(now[name])
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                where = f"{MANIFEST} {name}{f'.{key}' if key else ''}"
                yield Difference("counts", where, old.get(key, "nothing"), new.get(key, "nothing"))
