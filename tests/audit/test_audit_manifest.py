"""The audit of the manifest: every number of it that is not that of the tables is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.damaged_corpus import (
    edit_json,
    find_differences,
)

from stylear.curate.audit.auditor import audit
from stylear.curate.audit.manifest import build_manifest
from stylear.errors import CorpusError


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("counts.raw", 13),
        ("counts.preferences", 0),
        ("ratio.raw_per_stylized", 3.0),
        ("splits.val.contents", 1),
        ("stages.fetch.dropped.not-an-image", 0),
        ("stages.filter.kept", 41),
        ("seed", 1),
        ("name", "other"),
    ],
)
def test_an_edited_number_of_the_manifest_is_found(corpus: Path, place: str, value: Any) -> None:
    def change(manifest: Any) -> None:
        *way, last = place.split(".")
        for part in way:
            manifest = manifest[part]
        assert manifest[last] != value
        manifest[last] = value

    edit_json(corpus / "manifest.json", change)
    [difference] = audit(corpus).differences
    assert (difference.kind, difference.where) == ("counts", f"manifest.json {place}")
    assert difference.expected == json.dumps(value)
    assert difference.found != difference.expected


def test_a_hash_or_a_file_taken_out_of_the_manifest_is_found(corpus: Path) -> None:
    edit_json(corpus / "manifest.json", lambda m: m["files"].pop("train/00000.tar"))
    assert find_differences(corpus) == {("extra", "train/00000.tar")}
    edit_json(corpus / "manifest.json", lambda m: m["files"]["mix.parquet"].update(sha256="0" * 64))
    assert find_differences(corpus) == {
        ("extra", "train/00000.tar"),
        ("changed", "mix.parquet"),
        ("ledger", "ledger/mix/all.json mix.parquet"),
    }


def test_a_corpus_without_a_manifest_was_never_finished(corpus: Path) -> None:
    (corpus / "manifest.json").unlink()
    with pytest.raises(CorpusError, match=r"expected a finished corpus, found no manifest\.json"):
        audit(corpus)


@pytest.mark.parametrize("text", ["", "[]", '{"files": {"a": {"bytes": "1", "sha256": "x"}}}'])
def test_a_manifest_that_is_none_is_one_error(corpus: Path, text: str) -> None:
    (corpus / "manifest.json").write_text(text)
    with pytest.raises(CorpusError, match=r"manifest\.json: expected a manifest, found") as caught:
        audit(corpus)
    assert "\n" not in caught.value.message


def test_the_manifest_is_the_same_when_it_is_built_again(finished: Path) -> None:
    assert build_manifest(finished) == json.loads((finished / "manifest.json").read_text())


def test_the_manifest_counts_shards_and_not_their_sum_too(finished: Path) -> None:
    stages = build_manifest(finished)["stages"]
    assert stages["fetch"] == {
        "units": 3, "rows": 17, "kept": 16, "dropped": {"not-an-image": 1},
    }  # fmt: skip
    assert stages["synthesize"] == {"units": 3, "rows": 24, "kept": 24, "dropped": {}}
    assert stages["score.texture"] == {"units": 6, "rows": 41}
