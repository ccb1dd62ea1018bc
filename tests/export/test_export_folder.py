"""A folder of an export appears whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stylear.curate.export.folder import fresh_folder
from stylear.errors import CorpusLocked, StorageError, UsageError

KILLED = """
import os, signal, sys
from pathlib import Path
from stylear.curate.export.folder import fresh_folder
with fresh_folder(Path(sys.argv[1])) as folder:
    (folder / "half").mkdir()
    (folder / "half" / "file").write_text("unfinished")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_folder_gets_its_name_at_the_end(tmp_path: Path) -> None:
    with fresh_folder(tmp_path / "new" / "out") as folder:
        (folder / "file").write_text("whole")
        assert not (tmp_path / "new" / "out").exists()
    assert names(tmp_path) == ["new", "new/out", "new/out/file"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with fresh_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("whole")
    assert names(tmp_path) == ["out", "out/file"]


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with fresh_folder(tmp_path / "out") as folder:
            (folder / "file").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path) == []


def test_a_full_disk_is_a_storage_error_that_names_the_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"out: cannot write: No space left"),
        fresh_folder(tmp_path / "out"),
    ):
        raise OSError(28, "No space left on device")


def test_a_killed_export_leaves_no_folder_and_the_next_one_starts_anew(tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert killed.returncode == -9
    assert names(tmp_path) == [".out.tmp", ".out.tmp/half", ".out.tmp/half/file"]
    with fresh_folder(out) as folder:
        assert names(folder) == []
        (folder / "file").write_text("whole")
    assert names(tmp_path) == ["out", "out/file"]


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_existing_files_are_refused_and_left_alone(tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    if what == "folder":
        out.mkdir()
        (out / "mine").write_text("mine")
    elif what == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    before = names(tmp_path)
    with pytest.raises(UsageError, match="expected a new or empty folder"), fresh_folder(out):
        raise AssertionError
    assert names(tmp_path) == before


def test_two_exports_to_one_folder_exclude_each_other(tmp_path: Path) -> None:
    with fresh_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("of the first")
        with pytest.raises(CorpusLocked, match="another process"), fresh_folder(tmp_path / "out"):
            raise AssertionError
    assert (tmp_path / "out" / "file").read_text() == "of the first"
