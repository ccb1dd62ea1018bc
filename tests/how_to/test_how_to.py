"""The commands of the how-to pages, run as they are printed, one page after the other on one small corpus."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from builders.page_commands import DOCS, page_commands, run_anywhere, shrink_recipe
from builders.pictures_folder import make_folders

from stylear.curate.corpus.answers import Answer, append_answer, read_answers
from stylear.curate.corpus.parquet import read_table

SMALL = {  # beside what is printed: the same work, less of it
    "train": "--steps 2 --batch-size 4",
    "evaluate": "--seeds 1",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Photos and styles; the pages add what they make."""
    make_folders(tmp_path, pictures=24, styles=6)
    return tmp_path


@pytest.fixture
def served(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reviews that were asked for: they are named and not served, as they do not end by themselves.

    The home is the working directory.
    """
    served: list[str] = []
    monkeypatch.chdir(home)
    monkeypatch.setenv("STYLEAR_MODELS", str(home / "models"))
    monkeypatch.setattr("stylear.curate.engine.cores", lambda: 1)  # no worker processes
    monkeypatch.setattr(
        "stylear.curate.cli.review.serve",
        lambda root, question, reviewer, *_, **__: served.append(
            f"{root.name} {question} {reviewer}"
        ),
    )
    return served


def run_page(page: str) -> dict[str, str]:
    """Run the commands of a page; what each printed, by line."""
    printed = {}
    for line in page_commands(f"how-to/{page}.md"):
        words = shlex.split(line, comments=True)
        printed[line] = run_anywhere(f"{line} {SMALL.get(words[1], '')}").output
        if line.startswith("stylear curate init"):
            shrink_recipe(Path(words[3]))
    return printed


def curate(home: Path) -> None:
    printed = run_page("curate")
    assert (home / "my-corpus" / "report" / "index.html").is_file()
    sha256 = json.loads((home / "my-corpus" / "manifest.json").read_text())["recipe_sha256"]
    assert len(sha256) == 64
    [audit, sample] = [printed[line] for line in printed if " audit " in line]
    assert "matches its manifest" in audit
    assert "not examined: the images of" in sample
    shutil.copytree(home / "my-corpus", home / "my-corpus-1")


def train(home: Path) -> None:
    run_page("train")
    assert (home / "pictures" / "grid.png").is_file()
    assert (home / "compared" / "grid.png").is_file()


def hand_over(home: Path) -> None:
    verdicts = read_table(home / "my-corpus" / "verdicts.parquet", ["key", "kept"]).to_pylist()
    dropped = next(row["key"] for row in verdicts if row["kept"])
    append_answer(home / "my-corpus", Answer("pair", dropped, "ann", "drop"))
    printed = run_page("hand-over")
    [diff] = [printed[line] for line in printed if " diff " in line]
    assert "human-dropped" in diff
    for name in ("hf", "croissant", "summary", "sums"):
        assert any((home / f"my-corpus-{name}").iterdir()), name


def answer_takedown(home: Path) -> None:
    [raw] = [
        row["key"]
        for path in sorted((home / "my-corpus" / "raw").glob("*.parquet"))
        for row in read_table(path, ["key", "source"]).to_pylist()
        if row["source"] == "folder:photos/p002.png"
    ]
    append_answer(home / "my-corpus", Answer("pair", raw, "bo", "keep"))
    printed = run_page("takedown")
    counted = [printed[line] for line in printed if "--dry-run" in line]
    assert all("pairs that would be forgotten: " in text for text in counted)
    assert "runs/sft" in counted[0]
    assert raw not in {answer.task for answer in read_answers(home / "my-corpus")}


def test_every_command_of_the_pages_works_one_page_after_the_other(
    home: Path, served: list[str]
) -> None:
    curate(home)
    train(home)
    hand_over(home)
    answer_takedown(home)
    assert served == ["compared prefer ann", "my-corpus keep ann", "my-corpus prefer bo"]


def test_the_pages_are_listed_in_the_readme() -> None:
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    pages = sorted(path.name for path in (DOCS / "how-to").glob("*.md"))
    assert pages == ["curate.md", "hand-over.md", "takedown.md", "train.md"]
    assert [page for page in pages if f"docs/how-to/{page}" not in readme] == []


def test_the_page_of_the_audit_has_its_checks() -> None:
    from stylear.curate.audit.result import CLAIMS

    page = (DOCS / "audit.md").read_text("utf-8")
    assert [name for name, claim in CLAIMS.items() if f"| {name} | {claim} |" not in page] == []
