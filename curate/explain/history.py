"""The history of a pair: where it came from, what each stage did with it, and where it is now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylear.curate.corpus.candidates import parse_style
from stylear.curate.corpus.ledger import ALL
from stylear.curate.explain.find import Matches, RowLocation
from stylear.curate.explain.rules import Rule, fetch_rule, filter_rule, mix_rule, round_score
from stylear.curate.explain.tables import HistoryTables
from stylear.curate.stage import STAGE_OF_KIND

KEPT, DROPPED, NOT_RUN, NOT_REACHED = "kept", "dropped", "not run yet", "not reached"
History = dict[str, Any]


def explain(corpus: Path, matches: Matches) -> list[History]:
    """The history of each pair; in an unfinished corpus, what is known so far."""
    reader = PairHistoryReader(HistoryTables(corpus))
    return [reader.read_history(location) for location in matches.locations]


class PairHistoryReader:
    """Reads the history of pairs from the committed tables of a corpus."""

    def __init__(self, tables: HistoryTables) -> None:
        self.tables = tables
        self.settings = {
            stage: entry.settings
            for stage in ("fetch", "filter", "mix")
            if (entry := tables.ledger.entry(stage, ALL)) is not None
        }

    def read_history(self, location: RowLocation) -> History:
        """The history of the pair in a row, as a JSON object."""
        row = self.tables.read_row(location)
        key = str(row["key"])
        details = json.loads(row.pop("details"))
        mixed = self.tables.mixed(key)
        split = None if mixed is None else mixed["split"]
        preferences = self.tables.preferences(key)
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
            "training_shard": self.tables.training_shard(split, key) if split else None,
        }
        if location.kind == "raw":
            history["children"] = [
                child | {"style": parse_style(child["reference"]) if child["reference"] else None}
                for child in self.tables.children(key)
            ]
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
        fetched_at = self.tables.fetched_at(location.unit, row["key"])
        if fetched_at is not None:
            origin["fetched_at"] = fetched_at
        return origin | dict(details)

    def scores(self, key: str, location: RowLocation) -> dict[str, History]:
        """The values of each scorer, and the model that computed them."""
        scores: dict[str, History] = {}
        for name, row, metadata in self.tables.read_scores(location):
            values = {k: round_score(v) for k, v in row.items()}
            if values.pop("key") != key or all(value is None for value in values.values()):
                continue
            known = ("type", "model", "weights_sha256")
            provenance = {k: v for k, v in metadata.items() if k in known}
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
        verdict = self.tables.verdict(row["key"])
        if verdict is None:  # also if the filter ran before this shard was added
            return [*steps, stage_outcome("filter", NOT_RUN)]
        if not verdict["kept"]:
            reason = str(verdict["reason"])
            rules = self.settings["filter"]["filter"]
            style = parse_style(row["reference"]) if row["reference"] else None
            rule = filter_rule(self.tables, reason, verdict, style, rules)
            return [*steps, stage_outcome("filter", DROPPED, reason, rule)]
        steps.append(stage_outcome("filter", KEPT))
        if mixed is None:
            return [*steps, stage_outcome("mix", NOT_RUN)]
        if not mixed["kept"]:
            reason = str(mixed["reason"])
            rule = mix_rule(reason, row, self.settings["mix"])
            return [*steps, stage_outcome("mix", DROPPED, reason, rule)]
        steps.append(stage_outcome("mix", KEPT))
        if location.kind == "stylized" and "pairs" not in self.tables.finished:
            return [*steps, stage_outcome("pairs", NOT_RUN)]
        return [*steps, stage_outcome("pairs", "used")] if preferences else steps


def stage_outcome(
    stage: str, outcome: str, reason: str | None = None, rule: Rule | None = None
) -> History:
    """The outcome of one stage, as a JSON object."""
    return {"stage": stage, "outcome": outcome, "reason": reason, **(rule or Rule()).fields()}


def describe_outcome(history: Mapping[str, Any]) -> str:
    """The final outcome of the pair in one line."""
    last = next(stage for stage in reversed(history["stages"]) if stage["stage"] != "pairs")
    if last["outcome"] == DROPPED:
        return f"dropped by {last['stage']}: {last['reason']}"
    if last["outcome"] == NOT_RUN:
        return f"kept so far; {last['stage']} has not run yet"
    return f"in {history['training_shard'] or history['split']}"
