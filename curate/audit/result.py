"""The result of an audit: one line per check, every difference, and the warnings of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylear.curate.audit.difference import Difference
from stylear.errors import AuditFailed, StylearError

SHOWN = 3  # differences in the error's message
CLAIMS = {  # check -> what it proves if it passes
    "files": "every file has the size and the sha256 in manifest.json, and there is no other file",
    "tables": "the recipe, the ledger and every table can be read",
    "stages": "at every stage, pairs in = pairs kept + pairs dropped",
    "conservation": "the tables hold as many kept pairs, and as many dropped per reason, as the ledger says",
    "recipe": "every stage ran with the settings of recipe.yaml, and committed the files that exist",
    "pairs": "every pair has one verdict, a reason if it was dropped, and its place in the mix",
    "rules": "the recipe's rules and quotas, applied again, keep and drop the same pairs",
    "opt-outs": "nothing is kept whose server forbade its use",
    "lineage": "every stylized pair follows from its reference, prompt, parent, seed and settings",
    "splits": "no content, style reference, picture, lineage or near duplicate is in both train and val",
    "ratio": "there are as many raw pairs as the recipe asks for, or all that were kept",
    "preferences": "both sides are candidates of one prompt; the chosen one is in train and scores higher",
    "scores": "every pair has its scores, by one model with the same weights and preprocessing",
    "shards": "every tar holds exactly the images, captions and records of its table, in order",
    "indexes": "every wids.json lists the existing shards with their sizes and hashes",
    "forgotten": "nothing is left of a forgotten pair except its key",
    "manifest": "the counts, the ratio and the splits in manifest.json are those of the tables",
}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: how much it examined, and how many differences it found."""

    check: str
    examined: str  # 64 files, 301 pairs, ...
    differences: int

    @property
    def result(self) -> str:
        return "failed" if self.differences else "passed"


@dataclass(frozen=True, slots=True)
class AuditResult:
    """The numbers of everything examined, and every difference."""

    corpus: Path
    files: int
    bytes: int
    pairs: int  # in raw/ and stylized/, dropped ones too
    samples: int  # in train/ and val/
    manifest_sha256: str
    checks: tuple[CheckResult, ...]  # those that were run
    differences: tuple[Difference, ...]
    warnings: tuple[
        str, ...
    ] = ()  # where the corpus falls short of its recipe, though its files are intact
    not_examined: tuple[str, ...] = ()  # what a sample left out

    @property
    def passed(self) -> bool:
        return not self.differences

    def require(self) -> AuditResult:
        """The result itself. Raises AuditFailed if anything differs."""
        if self.passed:
            return self
        first = "; ".join(str(difference) for difference in self.differences[:SHOWN])
        more = len(self.differences) - SHOWN
        raise AuditFailed(
            f"{self.corpus}: {first}{f'; and {more} more' if more > 0 else ''}",
            hint="list every difference with `stylear curate audit CORPUS --json`; rebuild damaged files with"
            " `stylear curate run RECIPE --out CORPUS`, everything after a stage with `--redo STAGE`",
        )

    def check_rows(self) -> list[dict[str, Any]]:
        """For a table: every check with its result and with what it proves."""
        run = {check.check: check for check in self.checks}
        return [
            {
                "check": name,
                "result": run[name].result if name in run else "not run",
                "examined": run[name].examined if name in run else None,
                "claim": claim,
            }
            for name, claim in CLAIMS.items()
        ]

    def difference_rows(self) -> list[dict[str, Any]]:
        """For a table: every difference; none for an audit that passed."""
        names = ("kind", "file", "key", "expected", "found")
        return [
            {name: getattr(difference, name) for name in names} for difference in self.differences
        ]

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "corpus": str(self.corpus),
            "passed": self.passed,
            "manifest_sha256": self.manifest_sha256,
            "files": self.files,
            "bytes": self.bytes,
            "pairs": self.pairs,
            "samples": self.samples,
            "warnings": list(self.warnings),
            "not_examined": list(self.not_examined),
            "checks": self.check_rows(),
            "differences": self.difference_rows(),
        }


class Findings:
    """Collects what the checks find, in the order in which they run."""

    def __init__(self) -> None:
        self.checks: list[CheckResult] = []
        self.differences: list[Difference] = []

    def record(self, check: str, examined: str, differences: Iterable[Difference]) -> None:
        """Run a check to its end and keep its differences; an error that stops it is one too."""
        new: list[Difference] = []
        try:
            new.extend(differences)
        except StylearError as error:
            new.append(Difference("unreadable", check, "a check that can be made", error.message))
        self.checks.append(CheckResult(check, examined, len(new)))
        self.differences += new
