"""The history of a pair: where it came from, what each stage did with it, and where it is now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylear.curate.corpus.candidates import parse_style
from stylear.curate.corpus.layout import FETCHED, MIX, VERDICTS, score_path
from stylear.curate.corpus.ledger import ALL, Ledger
from stylear.curate.corpus.parquet import read_table
from stylear.curate.explain.find import (
    Matches,
    RowLocation,
    committed_tables,
    read_row_at,
    select_rows,
)
from stylear.curate.explain.rules import Rule, fetch_rule, filter_rule, mix_rule, round_score
from stylear.curate.score import read_metadata
from stylear.curate.stage import STAGE_OF_KIND

KEPT, DROPPED, NOT_RUN, NOT_REACHED = "kept", "dropped", "not run yet", "not reached"
EMBEDDINGS = ".embeddings"
SPLITS = ("train", "val")
History = dict[str, Any]


def explain(corpus: Path, matches: Matches) -> list[History]:
    """The history of each pair; in an unfinished corpus, what is known so far."""
    reader = PairHistoryReader(corpus)
    return [reader.read_history(location) for location in matches.locations]


class PairHistoryReader:
    """Reads the history of pairs from the committed files of a corpus."""

    def __init__(self, corpus: Path) -> None:
        self.corpus, self.ledger = corpus, Ledger(corpus)
        self.settings = {
            stage: entry.settings
            for stage in ("fetch", "filter", "mix")
            if (entry := self.ledger.entry(stage, ALL)) is not None
        }
        self.has_pairs = self.ledger.entry("pairs", ALL) is not None

    def read_history(self, location: RowLocation) -> History:
        """The history of the pair in a row, as a JSON object."""
        row = read_row_at(self.corpus, location)
        key = str(row["key"])
        details = json.loads(row.pop("details"))
        split, mixed = self.split(key)
        preferences = self.preferences(key)
        history: History = {
            "key": key,
            "kind": location.kind,
            "caption": row["caption"],
            "content": row["content"],
            "shard": f"{location.kind}/{location.unit}",
            "image": self.image(row),
            "origin": self.origin(row, details, location),
            "scores": self.scores(key, location),
            "stages": self.stages(row, location, mixed, preferences),
            "split": split,
            "training_shard": self.training_shard(split, key),
        }
        if location.kind == "raw":
            history["children"] = self.children(key)
        history["preferences"] = preferences
        history["outcome"] = describe_outcome(history)
        return history

    def image(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """The stored image."""
        if row["image_sha256"] is None:
            return None
        names = {"sha256": "image_sha256", "width": "width", "height": "height", "format": "ext"}
        return {name: row[column] for name, column in names.items()}

    def origin(
        self, row: Mapping[str, Any], details: Mapping[str, Any], location: RowLocation
    ) -> History:
        """The source of a raw pair; reference, prompt, seed and models of a stylized one."""
        origin: History = {"source": row["source"]}
        if location.kind == "stylized":
            names = ("reference", "reference_sha256", "parent")
            return origin | {name: row[name] for name in names} | dict(details)
        origin["sha256"] = row["source_sha256"]
        fetched = self.corpus / FETCHED / f"{location.unit}.parquet"
        if fetched.is_file():
            for one in select_rows(fetched, "key", [row["key"]], ["key", "fetched_at"]):
                origin["fetched_at"] = one["fetched_at"].isoformat()
        return origin | dict(details)

    def scores(self, key: str, location: RowLocation) -> dict[str, History]:
        """The values of each scorer, and the model that computed them."""
        scores: dict[str, History] = {}
        for stage in self.ledger.stages():
            family, _, name = stage.partition(".")
            unit = f"{location.kind}-{location.unit}"
            if (
                family != "score"
                or name.endswith(EMBEDDINGS)
                or self.ledger.entry(stage, unit) is None
            ):
                continue
            table = read_table(score_path(self.corpus, name, location.kind, int(location.unit)))
            values = {
                k: round_score(v) for k, v in table.slice(location.row, 1).to_pylist()[0].items()
            }
            if values.pop("key") != key or all(value is None for value in values.values()):
                continue
            provenance = {
                k: v
                for k, v in read_metadata(table).items()
                if k in ("type", "model", "weights_sha256")
            }
            scores[name] = values | {"measured_by": provenance}
        return scores

    def stages(
        self,
        row: Mapping[str, Any],
        location: RowLocation,
        mixed: Mapping[str, Any] | None,
        preferences: Sequence[History],
    ) -> list[History]:
        """The outcome and the deciding rule of each stage; `not run yet` for the next one."""
        maker = STAGE_OF_KIND[location.kind]
        if not row["kept"]:
            reason = str(row["reason"])
            settings = self.settings.get("fetch", {})
            rule = fetch_rule(reason, row, settings) if maker == "fetch" else Rule()
            return [stage_outcome(str(row["stage"] or maker), DROPPED, reason, rule)]
        steps = [stage_outcome(maker, KEPT)]
        if "filter" not in self.settings:
            return [*steps, stage_outcome("filter", NOT_RUN)]
        verdict = next(iter(select_verdicts(self.corpus, [row["key"]])), None)
        if verdict is None:  # the filter ran before this shard was added
            return [*steps, stage_outcome("filter", NOT_RUN)]
        if not verdict["kept"]:
            reason = str(verdict["reason"])
            rules = self.settings["filter"]["filter"]
            return [
                *steps,
                stage_outcome(
                    "filter", DROPPED, reason, filter_rule(self.corpus, reason, verdict, rules)
                ),
            ]
        steps.append(stage_outcome("filter", KEPT))
        if mixed is None:
            return [*steps, stage_outcome("mix", NOT_RUN)]
        if not mixed["kept"]:
            reason = str(mixed["reason"])
            return [
                *steps,
                stage_outcome("mix", DROPPED, reason, mix_rule(reason, row, self.settings["mix"])),
            ]
        steps.append(stage_outcome("mix", KEPT))
        if location.kind == "stylized" and not self.has_pairs:
            return [*steps, stage_outcome("pairs", NOT_RUN)]
        return [*steps, stage_outcome("pairs", "used")] if preferences else steps

    def split(self, key: str) -> tuple[str | None, History | None]:
        """The split of the pair and its row in mix.parquet; None where there is none."""
        if "mix" not in self.settings:
            return None, None
        columns = ["key", "kept", "split", "reason"]
        for row in select_rows(self.corpus / MIX, "key", [key], columns):
            return row["split"], row
        return None, None

    def training_shard(self, split: str | None, key: str) -> str | None:
        """The training shard that contains the pair."""
        for path in sorted((self.corpus / split).glob("*.parquet")) if split else ():
            if select_rows(path, "key", [key], ["key"]):
                return f"{split}/{path.stem}.tar"
        return None

    def children(self, key: str) -> list[History]:
        """The stylized pairs of a raw one with their outcomes."""
        import pyarrow.compute as pc

        stylized = []
        columns = ["key", "parent", "reference", "kept", "stage", "reason"]
        for kind, unit, table in committed_tables(self.corpus, columns):
            if kind == "stylized":
                for row in table.filter(pc.equal(table["parent"], key)).to_pylist():
                    stylized.append(row | {"shard": f"{kind}/{unit}", "split": None})
        children = {row["key"]: row for row in stylized}
        if "filter" in self.settings:
            for verdict in select_verdicts(self.corpus, list(children)):
                names = ("kept", "stage", "reason")
                children[verdict["key"]].update({name: verdict[name] for name in names})
        if "mix" in self.settings:
            columns = ["key", "kept", "split", "stage", "reason"]
            for mixed in select_rows(self.corpus / MIX, "key", list(children), columns):
                children[mixed["key"]].update(mixed)
        for child in stylized:
            del child["parent"]
            child["style"] = parse_style(child["reference"]) if child["reference"] else None
        return stylized

    def preferences(self, key: str) -> list[History]:
        """The preference pairs in which a pair is chosen or rejected."""
        import pyarrow.compute as pc

        preferences = []
        for path in (
            sorted((self.corpus / "preferences").glob("*.parquet")) if self.has_pairs else ()
        ):
            table = read_table(path, ["key", "chosen", "rejected", "margin"])
            sides = pc.or_(pc.equal(table["chosen"], key), pc.equal(table["rejected"], key))
            for row in table.filter(sides).to_pylist():
                role = "chosen" if row["chosen"] == key else "rejected"
                other = row["rejected"] if role == "chosen" else row["chosen"]
                preferences.append(
                    {"key": row["key"], "role": role, "other": other, "margin": row["margin"],
                     "shard": f"preferences/{path.stem}.tar"}
                )  # fmt: skip
        return preferences


def select_verdicts(corpus: Path, keys: list[str]) -> list[History]:
    """The verdicts of pairs, with the scores that decided."""
    return select_rows(corpus / VERDICTS, "key", keys)


def stage_outcome(
    stage: str, outcome: str, reason: str | None = None, rule: Rule | None = None
) -> History:
    """The outcome of one stage, as a JSON object."""
    return {"stage": stage, "outcome": outcome, "reason": reason, **(rule or Rule()).fields()}


def describe_outcome(history: Mapping[str, Any]) -> str:
    """The final outcome of the pair in one line."""
    last = next(one for one in reversed(history["stages"]) if one["stage"] != "pairs")
    if last["outcome"] == DROPPED:
        return f"dropped by {last['stage']}: {last['reason']}"
    if last["outcome"] == NOT_RUN:
        return f"kept so far; {last['stage']} has not run yet"
    return f"in {history['training_shard'] or history['split']}"
