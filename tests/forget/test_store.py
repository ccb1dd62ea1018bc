"""A corpus in an object store forgets as one on a disk does."""

from __future__ import annotations

import shutil
from pathlib import Path

from builders.forgotten_corpus import pair_to_forget

from stylear.curate.audit.auditor import audit
from stylear.curate.audit.manifest import corpus_files
from stylear.curate.corpus.object_store import corpus_path
from stylear.curate.corpus.storage import list_files, remove_path
from stylear.curate.forget import forget_pairs
from stylear.curate.forget.request import Request


def test_a_corpus_in_a_store_ends_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    store = corpus_path("memory://forget/corpus")
    for path in list_files(finished):
        if path.name != ".lock":
            target = store
            for part in path.relative_to(finished).parts:
                target = target / part
            with path.open("rb") as stream:
                target.write_bytes(stream.read())
    raw, _ = pair_to_forget(corpus)
    for place in (corpus, store):
        assert len(forget_pairs(place, Request(sources=(raw.origin.source,))).selection.keys) == 3
    written = {path.relative_to(store).as_posix(): path.read_bytes() for path in list_files(store)}
    names = [*corpus_files(corpus), "manifest.json"]
    assert [*corpus_files(store), "manifest.json"] == names
    assert {name: written[name] for name in names} == {n: (corpus / n).read_bytes() for n in names}
    assert audit(store).passed
    remove_path(store)
