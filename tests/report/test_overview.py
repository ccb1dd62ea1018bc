"""Totals, funnel, sources, files and recipe: the numbers of the ledger and of the manifest."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from builders.finished_corpus import finished_settings, make_sources
from builders.html_page import Page
from builders.pictures_folder import make_recipe

from stylear.curate import run as runner
from stylear.curate.corpus.layout import STAGES
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.report import write_report
from stylear.curate.report.sources import describe_source


@pytest.fixture(scope="module")
def text(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    corpus = shutil.copytree(finished, tmp_path_factory.mktemp("overview") / "corpus")
    return write_report(Path(corpus)).read_text("utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def totals(text: str) -> dict[str, tuple[str, str]]:
    """What is counted: its number, and the words that say what the number counts."""
    entries = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd><dd class='note'>(.*?)</dd>", text)
    return {what: (number, counted) for what, number, counted in entries}


def test_the_totals_are_those_of_the_manifest(finished: Path, text: str) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    counts = manifest["counts"]
    contents = sum(split["contents"] for split in manifest["splits"].values())
    kinds = f"{counts['raw']} raw, {counts['stylized']} stylized"
    assert totals(text) == {
        "pairs seen": ("41", "17 raw, 24 stylized; dropped ones too"),
        "training pairs": (str(counts["pairs"]), f"{kinds}; train and val"),
        "raw : stylized": ("1.00 : 1", "of the training pairs; asked: 1 : 1"),
        "contents": (str(contents), "distinct captions of the training pairs"),
        "styles": ("3", "of the training pairs"),
        "preference pairs": (str(counts["preferences"]), "chosen and rejected image of one prompt"),
    }


def test_the_funnel_has_the_numbers_of_the_ledger(finished: Path, page: Page) -> None:
    rows = {re.split(r"raw pairs,|stylized pairs,|raw and|pairs that", row[0])[0]: row[1:]
            for row in page.table("stage, and what it counts")}  # fmt: skip
    ledger = Ledger(finished)
    expected = {}
    for stage in ("fetch", "synthesize", "filter", "mix"):
        entry = ledger.entry(stage, "all")
        assert entry is not None
        most_first = sorted(entry.dropped.items(), key=lambda item: (-item[1], item[0]))
        why = "".join(f"{reason} {number}" for reason, number in most_first)
        dropped = sum(entry.dropped.values())
        expected[stage] = [*map(str, (entry.rows_in, entry.kept, dropped)), "", why or "-"]
    assert rows == expected
    assert rows["fetch"] == ["17", "16", "1", "", "not-an-image 1"]
    assert rows["synthesize"][:3] == ["24", "24", "0"]


def test_the_sources_of_the_raw_pairs_are_counted(finished: Path, page: Page) -> None:
    raw = json.loads((finished / "manifest.json").read_text())["counts"]["raw"]
    assert page.table("source") == [["folder photos", "17", "16", str(raw)]]


def test_a_source_is_a_folder_a_host_or_a_tar_without_a_password() -> None:
    assert [describe_source(text) for text in (
        "folder:photos/deep/a.jpg", "https://me:secret@example.org/a/b.jpg?c", "shard:a.tar#b/c",
        "mini:noto/0041", "parquet:a.parquet/17", "http://[::1",
    )] == [
        "folder photos/deep", "https://example.org", "shard a.tar", "mini", "parquet a.parquet",
        "unreadable URL",
    ]  # fmt: skip


def test_the_files_are_those_of_the_manifest(finished: Path, page: Page) -> None:
    files = json.loads((finished / "manifest.json").read_text())["files"]
    shown = {name: info for name, info in files.items()
             if name.startswith(("train/", "val/", "preferences/"))}  # fmt: skip
    assert page.table("file") == [
        [name, f"{info['bytes']:,}", info["sha256"]] for name, info in sorted(shown.items())
    ]
    assert f"{len(shown)} of the {len(files)} files" in " ".join(page.texts)
    digest = hashlib.sha256((finished / "manifest.json").read_bytes()).hexdigest()
    assert digest in page.texts


def test_the_recipe_stands_on_the_page(finished: Path, page: Page) -> None:
    assert (finished / "recipe.yaml").read_text() in page.texts


def test_warnings_of_the_run_stand_below_the_totals(finished: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    manifest = json.loads((corpus / "manifest.json").read_text())
    manifest["warnings"] = ["val has no <raw> pair"]
    (corpus / "manifest.json").write_text(json.dumps(manifest))
    page = Page(write_report(corpus).read_text("utf-8"))
    assert page.warnings == ["Warning: val has no <raw> pair"]


def test_a_corpus_without_stylized_pairs_has_a_page_without_those_sections(tmp_path: Path) -> None:
    make_sources(tmp_path)
    values = finished_settings(references=[], score=[], filter={})
    del values["synthesize"]
    runner.run_stages(STAGES, make_recipe(tmp_path, values), tmp_path / "corpus", workers=1)
    text = write_report(tmp_path / "corpus").read_text("utf-8")
    page = Page(text)
    assert [name for tag, _, name in page.headings if tag == "h2"] == [
        "Funnel", "Diversity", "Raw pairs", "Licences and opt-outs", "Versions", "Files", "Recipe",
    ]  # fmt: skip
    numbers = {what: number for what, (number, _) in totals(text).items()}
    assert numbers["raw : stylized"] == "-"
    assert (numbers["training pairs"], numbers["styles"], numbers["pairs seen"]) == (
        "16",
        "0",
        "17",
    )
    assert page.table("stage, and what it counts")[1][1:] == ["0", "0", "0", "", "-"]


def test_a_corpus_without_a_manifest_has_a_page_without_hashes_that_says_so(
    finished: Path, tmp_path: Path
) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    (corpus / "manifest.json").unlink()
    page = Page(write_report(corpus).read_text("utf-8"))
    assert page.table("file") == []
    assert not [row for row in page.rows if row[:1] == ["package"]]
    assert page.warnings[-1] == (
        "There is no manifest.json: the corpus is not finished, and nothing vouches for its files."
    )
