"""What the audit says: each check with what it proves, each difference, and one error at the end."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from stylear.curate.audit.auditor import audit
from stylear.curate.audit.manifest import corpus_files
from stylear.curate.audit.result import CLAIMS, AuditResult
from stylear.errors import AuditFailed


def test_a_failed_audit_is_one_error_with_the_first_differences(corpus: Path) -> None:
    for number in range(5):
        (corpus / f"extra{number}").write_text("x")
    result: AuditResult = audit(corpus)
    assert not result.passed
    with pytest.raises(AuditFailed) as caught:
        result.require()
    extra = "expected no such file, found a file that manifest.json does not list"
    assert caught.value.message == (
        f"{corpus}: extra0: {extra}; extra1: {extra}; extra2: {extra}; and 2 more"
    )
    assert "curate audit CORPUS --json" in (caught.value.hint or "")
    assert result.summary()["differences"][4] == {
        "kind": "extra",
        "file": "extra4",
        "key": None,
        "expected": "no such file",
        "found": "a file that manifest.json does not list",
    }


def results(corpus: Path) -> dict[str, str]:
    return {str(row["check"]): str(row["result"]) for row in audit(corpus).check_rows()}


def test_each_check_says_how_much_it_examined_and_what_it_proves(finished: Path) -> None:
    rows = audit(finished).check_rows()
    assert [(row["check"], row["claim"]) for row in rows] == list(CLAIMS.items())
    assert {row["result"] for row in rows} == {"passed"}
    examined = {row["check"]: row["examined"] for row in rows}
    tables = sum(name.endswith(".parquet") for name in corpus_files(finished))
    entries = sum(name.startswith("ledger/") for name in corpus_files(finished))
    assert examined == {
        "files": f"{len(corpus_files(finished))} files",
        "tables": f"{tables} tables",
        "stages": f"{entries} ledger entries",
        "conservation": "every table of pairs",
        "recipe": "recipe.yaml",
        "pairs": "41 pairs",
        "rules": "41 pairs",
        "opt-outs": "17 raw pairs",
        "lineage": "24 stylized pairs",
        "splits": "24 samples",
        "ratio": "2 splits",
        "preferences": "9 preference pairs",
        "scores": "12 score tables",
        "shards": "12 tars, 73 samples",
        "indexes": "3 indexes",
        "forgotten": "0 tombstones",
        "manifest": "counts of every stage and split",
    }
    assert audit(finished).summary()["checks"] == rows


def test_only_the_check_that_found_something_failed(corpus: Path) -> None:
    (corpus / "stray.txt").write_text("x")
    assert results(corpus) == {**dict.fromkeys(CLAIMS, "passed"), "files": "failed"}


def test_after_a_missing_file_no_check_passes_that_was_not_run(corpus: Path) -> None:
    (corpus / "mix.parquet").unlink()
    assert results(corpus) == {**dict.fromkeys(CLAIMS, "not run"), "files": "failed"}


def test_checks_that_need_an_unreadable_table_are_not_run(corpus: Path) -> None:
    path = corpus / "verdicts.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert results(corpus) == {
        **dict.fromkeys(CLAIMS, "not run"),
        **dict.fromkeys(("files", "tables"), "failed"),
        **dict.fromkeys(("stages", "scores", "recipe", "shards", "indexes"), "passed"),
    }


def test_the_command_prints_every_check_then_every_difference(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from stylear.curate.cli.inspect import audit as command

    command(corpus)
    printed = capsys.readouterr()
    assert [line.split()[:2] for line in printed.out.splitlines()] == [
        ["check", "result"], *([name, "passed"] for name in CLAIMS),
    ]  # fmt: skip
    sha256 = audit(corpus).manifest_sha256
    last = printed.err.splitlines()[-1]
    assert last == f"{corpus}: the corpus matches its manifest (sha256 {sha256})"
    (corpus / "stray.txt").write_text("x")
    with pytest.raises(AuditFailed):
        command(corpus)
    printed = capsys.readouterr()
    assert printed.out.splitlines()[len(CLAIMS) + 1 :] == [
        "",
        "kind   file       key  expected      found",
        "extra  stray.txt  -    no such file  a file that manifest.json does not list",
    ]
    assert "the corpus matches its manifest" not in printed.err


def test_random_damage_is_named_and_never_a_crash(corpus: Path) -> None:
    draw = random.Random(11)
    names = [name for name in corpus_files(corpus) if (corpus / name).stat().st_size]
    unnamed = []
    for round_ in range(36):
        path = corpus / (name := draw.choice(names))
        data = path.read_bytes()
        damaged = bytearray(data)
        place = draw.randrange(len(data))
        if round_ % 3 == 0:
            del damaged[place:]
        else:
            damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        if name not in {d.where for d in audit(corpus).differences}:
            unnamed.append((name, place))
        path.write_bytes(data)
    assert unnamed == []
    assert audit(corpus).passed
