"""Pairs: every key occurs once at each stage that should have it, and no verdict has changed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stylear.curate.audit.difference import Difference
from stylear.curate.audit.tables import ROW, Columns, Tables, equals
from stylear.curate.corpus.columns import TextIndex, Texts, hash_identities, to_bytes
from stylear.curate.corpus.layout import MIX, VERDICTS
from stylear.curate.corpus.split import SPLITS


def check_pairs(tables: Tables) -> Iterator[Difference]:
    """Keys that are lost, invented or repeated, changed rows, and drops without a reason."""
    pairs, verdicts, mix = tables.pairs, tables.verdicts, tables.mix
    index = TextIndex(pairs["key"])
    yield from compare_keys("raw, stylized", pairs["key"], pairs["key"])
    yield from compare_keys(VERDICTS, pairs["key"], verdicts["key"])
    yield from compare_keys(MIX, verdicts["key"][verdicts["kept"]], mix["key"])
    for split in SPLITS:
        samples = tables.splits[split]
        yield from compare_keys(split, mix["key"][equals(mix["split"], split)], samples["key"])
        origin = index.find(samples["key"])
        changed = (origin >= 0) & (pairs[ROW][origin] != samples[ROW])
        for key in samples["key"][changed]:
            yield Difference(
                "lineage",
                f"{split} {key.decode()}",
                "its row of raw or stylized",
                "a different row",
            )
    yield from check_verdicts(pairs, verdicts, index)
    for where, table in ((VERDICTS, verdicts), (MIX, mix)):
        reasons = table["reason"].fill_null("")
        for key in table["key"][~table["kept"] & equals(reasons, "")]:
            yield Difference("verdict", f"{where} {key.decode()}", "a reason", "none")


def check_verdicts(pairs: Columns, verdicts: Columns, index: TextIndex) -> Iterator[Difference]:
    """Pairs dropped by fetch or synthesize whose reason changed, and parents that are no raw pairs."""
    indices = TextIndex(verdicts["key"]).find(pairs["key"])
    reasons, first = hash_identities(verdicts["reason"]), hash_identities(pairs["reason"])
    judged = np.flatnonzero((indices >= 0) & ~pairs["kept"])
    changed = judged[reasons[indices[judged]] != first[judged]]
    children = np.flatnonzero(pairs["parent"].is_valid().to_numpy(zero_copy_only=False))
    parent = index.find(to_bytes(pairs["parent"].take(children)))
    raw = equals(pairs["kind"], "raw")
    orphans = children[~((parent >= 0) & raw[parent])] if len(raw) else children
    with_changes, without_parent = set(changed.tolist()), set(orphans.tolist())
    for row in sorted(with_changes | without_parent):
        key = pairs["key"][row].decode()
        if row in with_changes:
            now = verdicts["reason"][int(indices[row])].as_py()
            yield Difference(
                "verdict", key, f"the reason {pairs['reason'][row].as_py()}", now or "no reason"
            )
        if row in without_parent:
            parent_key = pairs["parent"][row].as_py()
            yield Difference("lineage", key, f"a raw pair {parent_key} as its parent", "none")


def compare_keys(where: str, expected: Texts, found: Texts) -> Iterator[Difference]:
    """Keys that are missing, unexpected or repeated."""
    for key in np.setdiff1d(expected, found):
        yield Difference("keys", where, f"key {key.decode()}", "no such key")
    for key in np.setdiff1d(found, expected):
        yield Difference("keys", where, f"no key {key.decode()}", "the key")
    repeated = found[TextIndex(found).find_repeated()]
    for key, more in zip(*np.unique(repeated, return_counts=True), strict=True):
        yield Difference("keys", where, f"key {key.decode()} once", f"{more + 1} times")
