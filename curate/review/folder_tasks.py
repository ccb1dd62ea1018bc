"""The tasks of a folder with pictures of several systems, drawn by any program.

One of:  samples.jsonl   as `stylear evaluate --out` writes it: file, model, reference, prompt, seed
         pictures.csv    columns file, system, prompt and, if there is one, reference (a picture's path)
         SYSTEM/NAME.png one subfolder a system, with files named alike; NAME is the prompt, and
                         references/NAME.png, if it exists, the style reference
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from stylear.console import say_warning
from stylear.curate.corpus.answers import Side
from stylear.curate.corpus.layout import REVIEW
from stylear.curate.review.tasks import Ask, Task, choice
from stylear.errors import SourceEmpty, SourceError, UsageError
from stylear.pair import digest

SAMPLES, TABLE, REFERENCES = "samples.jsonl", "pictures.csv", "references"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True)
class Row:
    """A picture of a system."""

    file: str
    system: str
    prompt: str
    reference: str | None
    number: str = ""  # tells apart several pictures of one system, reference and prompt


class FolderMaterial:
    """Pictures of at least two systems in one folder."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SourceError(f"{folder}: expected a folder with pictures, found none")
        self.folder = folder.resolve()

    def tasks(self, ask: Ask) -> list[Task]:
        """One task for each two systems and each prompt and reference that both have drawn.

        Raises SourceError for rows and paths that cannot be used, SourceEmpty if nothing can be compared.
        """
        if ask != "prefer":
            raise UsageError(
                "--from: expected --ask prefer: there are no pairs to keep in a folder of pictures"
            )
        rows = list(self._read_rows())
        tasks: dict[tuple[str | None, str, str], dict[str, Row]] = {}
        for row in rows:
            self._path(row.file)
            drawn = tasks.setdefault((row.reference, row.prompt, row.number), {})
            if row.system in drawn:
                raise SourceError(
                    f"{self.folder}: {drawn[row.system].file} and {row.file} are of one system,"
                    " reference and prompt",
                    hint="distinguish them in a column seed",
                )
            drawn[row.system] = row
        alone = sum(len(drawn) < 2 for drawn in tasks.values())
        if alone == len(tasks):
            raise SourceEmpty(
                f"{self.folder}: expected pictures of at least two systems for the same prompt,"
                f" found {len(rows)} pictures and none to compare",
                hint="give each system a subfolder with files named alike, or write pictures.csv",
            )
        if alone:
            say_warning(f"{self.folder}: {alone} of {len(tasks)} prompts have only one picture")
        return [
            choice(
                digest("group", reference, prompt), prompt, reference,
                Side(a.system, a.file), Side(b.system, b.file),
            )
            for (reference, prompt, _), drawn in tasks.items()
            for a, b in combinations(drawn.values(), 2)
        ]  # fmt: skip

    def _read_rows(self) -> Iterator[Row]:
        for name, read in ((SAMPLES, read_samples), (TABLE, read_csv)):
            path = self.folder / name
            if path.is_file():
                for number, values in read(path):
                    yield read_row(path, number, values)
                return
        yield from self._walk()

    def _walk(self) -> Iterator[Row]:
        """The pictures of subfolders."""
        references = {p.stem: p.name for p in list_pictures(self.folder / REFERENCES)}
        for system in sorted(path for path in self.folder.iterdir() if path.is_dir()):
            if system.name in (REFERENCES, REVIEW) or system.name.startswith("."):
                continue
            for path in list_pictures(system):
                known = references.get(path.stem)
                reference = None if known is None else f"{REFERENCES}/{known}"
                yield Row(f"{system.name}/{path.name}", system.name, path.stem, reference)

    def _path(self, name: str) -> Path:
        """The path of a picture. Raises SourceError if it is missing or outside the folder."""
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder) or path.suffix.lower() not in SUFFIXES:
            raise SourceError(
                f"{self.folder}: expected paths of {', '.join(SUFFIXES)} inside it, found {name!r}"
            )
        if not path.is_file():
            raise SourceError(f"{path}: expected a picture, found none")
        return path

    def read_picture(self, side: Side) -> bytes:
        """The bytes of a picture."""
        return self._path(side.picture).read_bytes()

    def read_reference(self, reference: str) -> bytes | None:
        """The picture of a style reference: its path, or its name in references/; None without one."""
        names = [reference, *(f"{REFERENCES}/{reference}{suffix}" for suffix in SUFFIXES)]
        for name in names:
            try:
                return self._path(name).read_bytes()
            except SourceError:
                continue
        return None


def list_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted; none without the folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def read_samples(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of samples.jsonl with their numbers."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            values = json.loads(line)
        except ValueError as error:
            raise SourceError(f"{path}, line {number}: expected JSON, found: {error}") from error
        if not isinstance(values, dict):
            raise SourceError(f"{path}, line {number}: expected an object, found {line[:40]!r}")
        values.setdefault("system", values.get("model"))
        yield number, values


def read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of pictures.csv with their line numbers."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for values in reader:
            yield reader.line_num, dict(values)


def read_row(path: Path, number: int, values: dict[str, Any]) -> Row:
    """One row. Raises SourceError if it lacks a column."""
    for name in ("file", "system", "prompt"):
        if not isinstance(values.get(name), str) or not values[name]:
            raise SourceError(
                f"{path}, line {number}: expected a {name}, found {values.get(name)!r}",
                hint="columns: file, system, prompt and optionally reference and seed",
            )
    reference, seed = values.get("reference") or None, values.get("seed")
    return Row(
        values["file"], values["system"], values["prompt"],
        None if reference is None else str(reference), "" if seed is None else str(seed),
    )  # fmt: skip
