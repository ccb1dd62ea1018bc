"""Answers of people who reviewed pictures: one JSON object a line, which is only ever appended to.

    {"kind": "pair", "task": KEY, "answer": "keep" or "drop", ...}
    {"kind": "choice", "task": ID, "answer": "left", "right" or "tie", "group", "left", "right", ...}
    {"kind": "undo", "task": the task whose answer is taken back}

Each also has `reviewer` and `at`, the time in UTC. The last answer of a reviewer to a task counts. A killed
process can leave a torn last line: readers ignore it, and the next writer cuts it off.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stylear.curate.corpus.layout import ANSWERS
from stylear.curate.corpus.storage import map_storage_errors, sync_directory, write_bytes
from stylear.errors import CorpusError
from stylear.pair import digest

KINDS = {"pair": ("keep", "drop"), "choice": ("left", "right", "tie")}
UNDO = "undo"
TAIL_BYTES = 1 << 16  # more than any line has


@dataclass(frozen=True, slots=True)
class Side:
    """A picture that was shown: who made it, and its key or its path in the folder."""

    model: str
    picture: str

    def fields(self) -> dict[str, str]:
        """For JSON."""
        return {"model": self.model, "picture": self.picture}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one reviewer said about one task."""

    kind: str
    task: str
    reviewer: str
    answer: str
    group: str = ""  # of a choice: the same for all pictures of one reference and prompt
    sides: tuple[Side, Side] | None = None  # of a choice: left, right

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        fields = {"kind": self.kind, "task": self.task, "reviewer": self.reviewer}
        if self.kind != UNDO:
            fields["answer"] = self.answer
        if self.sides is None:
            return fields
        left, right = (side.fields() for side in self.sides)
        return {**fields, "group": self.group, "left": left, "right": right}


@dataclass(frozen=True, slots=True)
class Votes:
    """How many reviewers keep and drop a pair."""

    keep: int = 0
    drop: int = 0


def append_answer(folder: Path, answer: Answer) -> None:
    """Append one answer to the file of a corpus or folder; it is on the disk when this returns.

    Several processes may append. Raises StorageError if the file cannot be written.
    """
    path = folder / ANSWERS
    values = {**answer.fields(), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    line = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    with map_storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with lock_answers(path) as handle:
            cut_torn_line(handle)
            os.write(handle, line)
            os.fsync(handle)
        if is_new:
            sync_directory(path.parent)
            sync_directory(folder)


@contextmanager
def lock_answers(path: Path) -> Iterator[int]:
    """The file of answers, open to append and locked; if it is replaced meanwhile, the new one."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                yield handle
                return
        finally:
            os.close(handle)


def forget_answers(folder: Path, keys: Collection[str]) -> int:
    """Remove every line about a forgotten pair from the file of answers; returns how many.

    Safe while people answer, and if it is killed: the new file replaces the old one at once.
    """
    path = folder / ANSWERS
    if not keys or not path.is_file():
        return 0
    with map_storage_errors(path), lock_answers(path) as handle:
        cut_torn_line(handle)
        lines = path.read_bytes().split(b"\n")[:-1]
        forgotten = find_tasks_about(lines, keys)
        left = [line for line in lines if read_task(line) not in forgotten]
        if len(left) < len(lines):
            write_bytes(path, b"".join(line + b"\n" for line in left))
    return len(lines) - len(left)


def find_tasks_about(lines: Iterable[bytes], keys: Collection[str]) -> set[str]:
    """The tasks of the lines that name one of these pairs, as the task itself or as a side."""
    tasks: set[str] = set()
    for line in lines:
        try:
            answer = parse_answer(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # reading the answers reports it
        sides = [side.picture for side in answer.sides or ()]
        if any(name in keys for name in (answer.task, *sides)):
            tasks.add(answer.task)
    return tasks


def read_task(line: bytes) -> str | None:
    """The task of a line; None if it is not an answer."""
    try:
        return read_text(json.loads(line), "task")
    except (ValueError, KeyError, TypeError):
        return None


def find_answers_about(folder: Path, keys: Collection[str]) -> list[str]:
    """The pairs among `keys` that the file of answers still names."""
    path = folder / ANSWERS
    if not keys or not path.is_file():
        return []
    named: set[str] = set()
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            answer = parse_answer(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        named |= {answer.task, *(side.picture for side in answer.sides or ())}
    return sorted(named.intersection(keys))


def cut_torn_line(handle: int) -> None:
    """Cut off what a killed writer left after the last complete line."""
    size = os.fstat(handle).st_size
    start = max(0, size - TAIL_BYTES)
    tail = os.pread(handle, size - start, start)
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(handle, start + tail.rfind(b"\n") + 1)


def read_answers(folder: Path) -> list[Answer]:
    """The answers that count, in the order in which they were given; none without a file.

    Raises CorpusError for a complete line that is not an answer, with its number.
    """
    path = folder / ANSWERS
    if not path.is_file():
        return []
    answers: dict[tuple[str, str], Answer] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            answer = parse_answer(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorpusError(
                f"{path}, line {number}: expected a review answer, found: {error!r}",
                hint="restore the file from a backup, or remove this line",
            ) from error
        answers.pop((answer.reviewer, answer.task), None)
        if answer.kind != UNDO:
            answers[answer.reviewer, answer.task] = answer
    return list(answers.values())


def parse_answer(values: Mapping[str, Any]) -> Answer:
    """One line's answer. Raises ValueError, KeyError or TypeError if it is invalid."""
    kind, sides = values["kind"], None
    if kind != UNDO and values["answer"] not in KINDS[kind]:
        raise ValueError(f"answer {values['answer']!r} of kind {kind!r}")
    if kind == "choice":
        left, right = (
            Side(read_text(values[side], "model"), read_text(values[side], "picture"))
            for side in ("left", "right")
        )
        sides = (left, right)
    return Answer(
        kind,
        read_text(values, "task"),
        read_text(values, "reviewer"),
        "" if kind == UNDO else values["answer"],
        read_text(values, "group") if kind == "choice" else "",
        sides,
    )


def read_text(values: Mapping[str, Any], name: str) -> str:
    """A value that must be a text. Raises TypeError for another type."""
    if not isinstance(values[name], str):
        raise TypeError(f"{name}: expected text, found {values[name]!r}")
    return str(values[name])


def count_votes(answers: Iterable[Answer]) -> dict[str, Votes]:
    """How many reviewers keep and drop each pair, by key, in the order of the keys."""
    counts: dict[str, Counter[str]] = {}
    for answer in answers:
        if answer.kind == "pair":
            counts.setdefault(answer.task, Counter())[answer.answer] += 1
    return {key: Votes(votes["keep"], votes["drop"]) for key, votes in sorted(counts.items())}


def list_preferences(answers: Iterable[Answer]) -> list[tuple[str, str]]:
    """(preferred, other) pictures on which more reviewers agree than disagree, sorted; ties are left out."""
    leads: Counter[tuple[str, str]] = Counter()
    for answer in answers:
        if answer.sides is not None and answer.answer != "tie":
            left, right = (side.picture for side in answer.sides)
            couple = (min(left, right), max(left, right))
            winner = left if answer.answer == "left" else right
            leads[couple] += 1 if winner == couple[0] else -1
    return sorted(
        couple if lead > 0 else (couple[1], couple[0]) for couple, lead in leads.items() if lead
    )


def votes_digest(folder: Path) -> Iterator[str]:
    """A hash of the votes on pairs, for the inputs of a stage; nothing where nobody voted."""
    if votes := count_votes(read_answers(folder)):
        yield digest("votes", *(f"{key} {v.keep} {v.drop}" for key, v in votes.items()))


def preferences_digest(folder: Path) -> Iterator[str]:
    """A hash of the preferences, for the inputs of a stage; nothing where nobody preferred a picture."""
    if preferences := list_preferences(read_answers(folder)):
        yield digest("preferences", *(" ".join(couple) for couple in preferences))
