"""Pictures of several systems: subfolders, pictures.csv, and what `stylear evaluate` writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.systems_folder import write_systems
from builders.tiny_corpus import picture

from stylear.curate.corpus.answers import Side
from stylear.curate.review.folder_tasks import FolderMaterial
from stylear.errors import SourceEmpty, SourceError, UsageError


def test_subfolders_are_systems_and_names_are_prompts(tmp_path: Path) -> None:
    tasks = FolderMaterial(write_systems(tmp_path, ("a", "b", "c"))).tasks("prefer")
    assert [(t.prompt, t.reference, sorted(s.model for s in t.sides)) for t in tasks] == [
        (prompt, f"references/{prompt}.png", couple)
        for prompt in ("a cat", "a dog")
        for couple in (["a", "b"], ["a", "c"], ["b", "c"])
    ]
    assert len({task.id for task in tasks}) == 6
    assert len({task.group for task in tasks}) == 2


def test_a_picture_of_one_system_only_is_left_out_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_systems(tmp_path)
    (folder / "ours" / "a dog.png").unlink()
    [task] = FolderMaterial(folder).tasks("prefer")
    assert task.prompt == "a cat"
    assert "1 of 2 prompts have only one picture" in capsys.readouterr().err


def test_what_evaluate_writes_is_read(tmp_path: Path) -> None:
    lines = []
    for model in ("x", "y"):
        for seed in (0, 1):
            file = f"pictures/{model}/{seed:04d}.png"
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_bytes(picture(seed))
            lines.append(json.dumps({"file": file, "model": model, "reference": "dots--1",
                                     "prompt": "a cat", "seed": seed}))  # fmt: skip
    (tmp_path / "samples.jsonl").write_text("\n".join(lines))
    material = FolderMaterial(tmp_path)
    first, second = material.tasks("prefer")
    assert first.group == second.group
    assert first.sides == (Side("x", "pictures/x/0000.png"), Side("y", "pictures/y/0000.png"))
    assert first.reference == "dots--1"
    assert material.read_reference("dots--1") is None
    (tmp_path / "references").mkdir()
    (tmp_path / "references" / "dots--1.png").write_bytes(picture(7))
    assert material.read_reference("dots--1") == picture(7)


@pytest.mark.parametrize("file", ["../secret.png", "/etc/passwd", "ours/x.svg", "link/x.png"])
def test_a_path_outside_the_folder_or_no_picture_is_refused(tmp_path: Path, file: str) -> None:
    folder = write_systems(tmp_path / "drawn")
    (tmp_path / "secret.png").write_bytes(picture(1))
    (tmp_path / "x.png").write_bytes(picture(1))
    (folder / "link").symlink_to(tmp_path)
    (folder / "pictures.csv").write_text(f"file,system,prompt\n{file},ours,a cat\n")
    with pytest.raises(SourceError, match="inside it, found"):
        FolderMaterial(folder).tasks("prefer")
    assert FolderMaterial(folder).read_reference(file) is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,system\nours/a cat.png,ours\n", "line 2: expected a prompt, found None"),
        ("file,system,prompt\nours/none.png,ours,a\n", "expected a picture, found none"),
        (
            "file,system,prompt\nours/a cat.png,o,p\nours/a dog.png,o,p\n",
            "of one system, reference and prompt",
        ),
    ],
)
def test_rows_that_cannot_be_used_are_errors(tmp_path: Path, table: str, message: str) -> None:
    folder = write_systems(tmp_path)
    (folder / "pictures.csv").write_text(table)
    with pytest.raises(SourceError, match=message):
        FolderMaterial(folder).tasks("prefer")


def test_a_folder_with_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceEmpty, match="at least two systems"):
        FolderMaterial(write_systems(tmp_path, ["ours"])).tasks("prefer")
    with pytest.raises(SourceError, match="expected a folder"):
        FolderMaterial(tmp_path / "none")
    with pytest.raises(UsageError, match="expected --ask prefer"):
        FolderMaterial(tmp_path).tasks("keep")
