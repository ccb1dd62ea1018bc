"""Session: one reviewer works through tasks, one answer after the other, and can undo answers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from stylear.curate.corpus.answers import KINDS, UNDO, Answer, append_answer, read_answers
from stylear.curate.review.tasks import Task
from stylear.errors import CorpusError, UsageError

MAX_NAME = 64


class Session:
    """The tasks of one reviewer, of which some are answered. Threads may share it."""

    def __init__(self, folder: Path, tasks: Sequence[Task], reviewer: str) -> None:
        if not reviewer.isprintable() or not 0 < len(reviewer.strip()) <= MAX_NAME:
            raise UsageError(
                f"--reviewer: expected a name of 1 to {MAX_NAME} printable characters,"
                f" found {reviewer[:MAX_NAME]!r}"
            )
        self.folder, self.reviewer = folder, reviewer
        self.tasks = {task.id: task for task in tasks}
        own = [a.task for a in read_answers(folder) if a.reviewer == reviewer]
        self._answered = [task for task in own if task in self.tasks]  # the last is undone first
        self._lock = threading.Lock()

    @property
    def done(self) -> int:
        """How many tasks are answered."""
        return len(self._answered)

    def state(self) -> dict[str, Any]:
        """What the page shows: progress and the next task, without models, keys and paths."""
        with self._lock:
            answered = set(self._answered)
            task = next((task for task in self.tasks.values() if task.id not in answered), None)
            return {
                "reviewer": self.reviewer,
                "total": len(self.tasks),
                "done": len(answered),
                "task": None if task is None else show_task(task),
            }

    def answer(self, task_id: str, answer: str) -> Literal["saved", "answered", "unknown"]:
        """Record an answer. A task that is answered keeps its answer, so a double click changes nothing."""
        task = self.tasks.get(task_id)
        if task is None or answer not in KINDS[task.kind]:
            return "unknown"
        with self._lock:
            if task_id in self._answered:
                return "answered"
            sides = (task.sides[0], task.sides[1]) if task.kind == "choice" else None
            group = task.group if task.kind == "choice" else ""
            append_answer(
                self.folder, Answer(task.kind, task.id, self.reviewer, answer, group, sides)
            )
            self._answered.append(task_id)
        return "saved"

    def undo(self) -> bool:
        """Undo the last answer; False if there is none."""
        with self._lock:
            if not self._answered:
                return False
            append_answer(self.folder, Answer(UNDO, self._answered[-1], self.reviewer, ""))
            self._answered.pop()
        return True


def show_task(task: Task) -> dict[str, Any]:
    """A task as the page may know it."""
    return {
        "id": task.id,
        "kind": task.kind,
        "prompt": task.prompt,
        "has_reference": task.reference is not None,
    }


def require_tasks(tasks: Sequence[Task], place: Path, question: str) -> None:
    """Raise CorpusError if there is nothing to review."""
    if not tasks:
        raise CorpusError(
            f"{place}: expected pictures to review, found none to {question}",
            hint="choices need candidates: set synthesize.candidates to 2 or more"
            if question == "prefer"
            else "fetch pairs first: `stylear curate run RECIPE --out CORPUS`",
        )
