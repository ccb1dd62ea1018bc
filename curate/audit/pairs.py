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
                split,
                "its row of raw or stylized",
                "a different row",
                key.decode(),
            )
    yield from check_verdicts(pairs, verdicts, index)
    for where, table in ((VERDICTS, verdicts), (MIX, mix)):
        reasons = table["reason"].fill_null("")
        for key in table["key"][~table["kept"] & equals(reasons, "")]:
            yield Difference("verdict", where, "a reason", "none", key.decode())


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
            expected = f"the reason {pairs['reason'][row].as_py()}"
            yield Difference("verdict", VERDICTS, expected, now or "no reason", key)
        if row in without_parent:
            parent_key = pairs["parent"][row].as_py()
            expected = f"a raw pair {parent_key} as its parent"
            yield Difference("lineage", pairs["kind"][row].as_py(), expected, "none", key)


def compare_keys(where: str, expected: Texts, found: Texts) -> Iterator[Difference]:
    """Keys that are missing, unexpected or repeated."""
    for key in np.setdiff1d(expected, found):
        yield Difference("keys", where, "the key", "no such key", key.decode())
    for key in np.setdiff1d(found, expected):
        yield Difference("keys", where, "no such key", "the key", key.decode())
    repeated = found[TextIndex(found).find_repeated()]
    for key, more in zip(*np.unique(repeated, return_counts=True), strict=True):
        yield Difference("keys", where, "the key once", f"{more + 1} times", key.decode())
