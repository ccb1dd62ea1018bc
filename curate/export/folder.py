"""A new folder, filled under a temporary name beside its path and renamed when it is complete."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stylear.curate.corpus.storage import (
    TEMPORARY,
    list_files,
    map_storage_errors,
    storage_error,
    sync_directory,
)
from stylear.errors import CorpusLocked, StylearError, UsageError

SYNCED_SINGLY = (
    1000  # for more files the whole disk is synced once: 12,000 took 37 s one by one (our choice)
)


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which gets the name `target` when the block ends without an error.

    What a killed process left under the temporary name is removed first. Raises UsageError if something
    is at `target`, CorpusLocked while another process fills the same folder.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 (resolve would follow links)
    require_free(target)
    temporary = target.with_name(f".{target.name}{TEMPORARY}")
    with map_storage_errors(target):
        temporary.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
    try:
        require_alone(handle, temporary, target)
        try:
            empty_folder(temporary)
            yield temporary
            sync_tree(temporary)
            require_free(target)
            temporary.rename(target)
            sync_directory(target.parent)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError) and not isinstance(error, StylearError):
                raise storage_error(target, error) from error
            raise
    finally:
        os.close(handle)


def require_free(target: Path) -> None:
    """Raise UsageError unless `target` does not exist or is an empty folder."""
    if not os.path.lexists(target):
        return
    if target.is_dir() and not target.is_symlink():
        with map_storage_errors(target):
            first = next(target.iterdir(), None)
        if first is None:
            return
        found = f"a folder with {first.name!r} in it"
    else:
        found = "a file or a link"
    raise UsageError(
        f"--out {target}: expected a new or empty folder, found {found}",
        hint="an export never mixes with other files: give another --out, or remove what is there",
    )


def require_alone(handle: int, temporary: Path, target: Path) -> None:
    """Hold the temporary folder. Raise CorpusLocked if another process does or has just renamed it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = temporary.stat().st_ino == os.fstat(handle).st_ino
    except (BlockingIOError, FileNotFoundError):
        alone = False
    if not alone:
        raise CorpusLocked(
            f"{target}: another process is exporting to this folder",
            hint="wait for it to end, or give another --out",
        )


def empty_folder(folder: Path) -> None:
    """Remove the contents of a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def sync_tree(folder: Path) -> None:
    """Sync every file and folder below a folder to the disk."""
    files = list_files(folder)
    if len(files) > SYNCED_SINGLY:
        os.sync()
        return
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    for root in {folder, *(parent for file in files for parent in file.parents)}:
        if root.is_relative_to(folder):
            sync_directory(root)
