"""Tasks: what a reviewer is asked, in an order and with sides that the seed decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from stylear.curate.corpus.answers import Side
from stylear.pair import digest

Ask = Literal["keep", "prefer"]
ReadPicture = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Task:
    """One question: keep or drop one picture, or prefer one of two."""

    id: str
    kind: Literal["pair", "choice"]
    prompt: str
    reference: str | None  # by which its picture is read
    sides: tuple[Side, ...]  # one, or left and right
    group: str = ""  # the same for all pictures of one reference and prompt


class Material(Protocol):
    """Where tasks and their pictures come from: a corpus, or a folder of pictures of several systems."""

    def tasks(self, ask: Ask) -> list[Task]: ...

    def read_picture(self, side: Side) -> bytes: ...

    def read_reference(self, reference: str) -> bytes | None: ...


def order_tasks(tasks: Sequence[Task], seed: int, reviewer: str, limit: int | None) -> list[Task]:
    """The tasks of one reviewer: `limit` of them, the same for everybody, in a random order of their own.

    Left and right of a choice are swapped at random, differently for each reviewer.
    """
    chosen = sorted(tasks, key=lambda task: digest("review", seed, task.id))[:limit]
    chosen.sort(key=lambda task: digest("order", seed, reviewer, task.id))
    return [
        replace(task, sides=task.sides[::-1])
        if int(digest("sides", seed, reviewer, task.id), 16) % 2
        else task
        for task in chosen
    ]


def choice(group: str, prompt: str, reference: str | None, first: Side, second: Side) -> Task:
    """The question which of two pictures is better; the same id whichever comes first."""
    couple = sorted((first, second), key=lambda side: (side.picture, side.model))
    name = digest("choice", group, *(side.picture for side in couple))
    return Task(name, "choice", prompt, reference, tuple(couple), group)
