"""The explorer's data as its page reads it: chunks, columns, histories, and which pairs a link selects."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

STAGES = ("fetch", "synthesize", "filter", "mix")
MADE_BY = {"fetch": 0, "synthesize": 1}


def read_chunk(report: Path, name: str) -> bytes:
    """The data of a chunk; its file must be one call and nothing else."""
    text = (report / "data" / f"{name}.js").read_text("ascii")
    match = re.fullmatch(r'addChunk\("([a-z0-9-]+)","([A-Za-z0-9+/=]*)"\);\n', text)
    assert match is not None
    assert match[1] == name
    return gzip.decompress(base64.b64decode(match[2]))


def read_json(report: Path, name: str) -> Any:
    return json.loads(read_chunk(report, name))


def read_pictures(report: Path, name: str) -> list[bytes]:
    """The pictures of a chunk."""
    text = (report / "data" / f"{name}.js").read_text("ascii")
    match = re.fullmatch(r'addChunk\("([a-z0-9-]+)",\[((?:"[A-Za-z0-9+/=]*",?)*)\]\);\n', text)
    assert match is not None
    assert match[1] == name
    return [base64.b64decode(data) for data in re.findall(r'"([^"]*)"', match[2])]


class Explorer:
    """The data of a report."""

    def __init__(self, report: Path) -> None:
        self.report, self.corpus = report, read_json(report, "corpus")
        size = self.corpus["shown"]
        numbers = np.frombuffer(read_chunk(report, "rows"), "<i4").reshape(-1, size)
        self.columns = dict(zip(self.corpus["columns"], numbers, strict=True))
        scores = np.frombuffer(read_chunk(report, "scores"), "<f4").reshape(-1, size)
        names = [score["name"] for score in self.corpus["scores"]]
        self.scores: dict[str, NDArray[np.float32]] = dict(zip(names, scores, strict=True))

    def texts(self, name: str) -> list[str]:
        """A column of texts: key, caption or source."""
        many = -(-self.corpus["shown"] // self.corpus["rows_of"]["texts"])
        return [t for n in range(many) for t in read_json(self.report, f"texts-{n}")[name]]

    def histories(self) -> list[dict[str, Any]]:
        many = -(-self.corpus["shown"] // self.corpus["rows_of"]["histories"])
        return [
            history for n in range(many) for history in read_json(self.report, f"histories-{n}")
        ]

    def words(self, name: str, words: Sequence[Any]) -> list[Any]:
        """A column with its numbers replaced by what they mean; None for -1."""
        return [None if code < 0 else words[code] for code in self.columns[name].tolist()]

    def picture(self, row: int) -> bytes | None:
        """The stored thumbnail of a pair."""
        number, size = int(self.columns["picture"][row]), self.corpus["rows_of"]["pictures"]
        if number < 0:
            return None
        return read_pictures(self.report, self.corpus["pictures"][number // size])[number % size]

    def select(self, link: str) -> list[int]:
        """The rows that a link to the page selects."""
        words = link.partition("#")[2]
        query = dict(parse_qsl(words, strict_parsing=True)) if words else {}
        outcomes = self.words("outcome", self.corpus["outcomes"])
        values = {
            "style": self.words("style", self.corpus["styles"]),
            "source": self.words("source", self.corpus["sources"]),
            "licence": self.words("licence", self.corpus["licences"]),
            "reason": [one["reason"] for one in outcomes],
        }
        rows = []
        for row, outcome in enumerate(outcomes):
            kind = int(self.columns["kind"][row])
            matches = "outcome" not in query or is_outcome(query["outcome"], outcome, kind)
            for name in query.keys() - {"outcome"}:
                value = values[name][row]
                if name == "licence" and value is None and kind == 0:
                    value = "(not stated)"
                matches = matches and value == query[name]
            if matches:
                rows.append(row)
        return rows


def is_outcome(choice: str, outcome: dict[str, Any], kind: int) -> bool:
    """Whether a pair came into a stage, passed it or was dropped by it, or is used."""
    stage = outcome["stage"]
    used = stage in ("train", "val")
    if choice in ("used", "train", "val"):
        return used if choice == "used" else stage == choice
    what, _, name = choice.partition(":")
    if MADE_BY.get(name, kind) != kind:
        return False
    end, at = len(STAGES) if used else STAGES.index(stage), STAGES.index(name)
    return {"dropped": end == at, "in": end >= at, "kept": end > at}[what]
