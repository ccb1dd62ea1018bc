"""The life of a pair: where it came from, what each stage did with it, and where it is now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylear.curate.corpus.candidates import style_of
from stylear.curate.corpus.layout import FETCHED, MIX, VERDICTS, score_path
from stylear.curate.corpus.ledger import ALL, Ledger
from stylear.curate.corpus.parquet import read_table
from stylear.curate.explain.find import Found, Place, committed_tables, read_place, select_rows
from stylear.curate.explain.rules import Rule, fetch_rule, filter_rule, mix_rule, rounded
from stylear.curate.score import read_metadata
from stylear.curate.stage import STAGE_OF_KIND

KEPT, DROPPED, NOT_RUN, NOT_REACHED = "kept", "dropped", "not run yet", "not reached"
EMBEDDINGS = ".embeddings"
SPLITS = ("train", "val")
Life = dict[str, Any]


def explain(corpus: Path, found: Found) -> list[Life]:
    """What the corpus knows of each pair; of an unfinished one what is known so far."""
    reader = Reader(corpus)
    return [reader.life(place) for place in found.places]


class Reader:
    """Reads what a corpus says of a pair. Only what is committed counts."""

    def __init__(self, corpus: Path) -> None:
        self.corpus, self.ledger = corpus, Ledger(corpus)
        self.settings = {
            stage: entry.settings
            for stage in ("fetch", "filter", "mix")
            if (entry := self.ledger.entry(stage, ALL)) is not None
        }
        self.has_pairs = self.ledger.entry("pairs", ALL) is not None

    def life(self, place: Place) -> Life:
        """All that is known of the pair whose row lies there."""
        row = read_place(self.corpus, place)
        key = str(row["key"])
        details = json.loads(row.pop("details"))
        split, mixed = self.split(key)
        preferences = self.preferences(key)
        life: Life = {
            "key": key,
            "kind": place.kind,
            "caption": row["caption"],
            "content": row["content"],
            "place": f"{place.kind}/{place.unit}",
            "image": self.image(row),
            "origin": self.origin(row, details, place),
            "scores": self.scores(key, place),
            "stages": self.stages(row, place, mixed, preferences),
            "split": split,
            "training_shard": self.training_shard(split, key),
        }
        if place.kind == "raw":
            life["children"] = self.children(key)
        life["preferences"] = preferences
        life["outcome"] = describe_outcome(life)
        return life

    def image(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """The stored image."""
        if row["image_sha256"] is None:
            return None
        names = {"sha256": "image_sha256", "width": "width", "height": "height", "format": "ext"}
        return {name: row[column] for name, column in names.items()}

    def origin(self, row: Mapping[str, Any], details: Mapping[str, Any], place: Place) -> Life:
        """The source of a raw pair; reference, prompt, seed and models of a stylized one."""
        origin: Life = {"source": row["source"]}
        if place.kind == "stylized":
            names = ("reference", "reference_sha256", "parent")
            return origin | {name: row[name] for name in names} | dict(details)
        origin["sha256"] = row["source_sha256"]
        fetched = self.corpus / FETCHED / f"{place.unit}.parquet"
        if fetched.is_file():
            for one in select_rows(fetched, "key", [row["key"]], ["key", "fetched_at"]):
                origin["fetched_at"] = one["fetched_at"].isoformat()
        return origin | dict(details)

    def scores(self, key: str, place: Place) -> dict[str, Life]:
        """By scorer: the values, and the model that measured them."""
        found: dict[str, Life] = {}
        for stage in self.ledger.stages():
            family, _, name = stage.partition(".")
            unit = f"{place.kind}-{place.unit}"
            if (
                family != "score"
                or name.endswith(EMBEDDINGS)
                or self.ledger.entry(stage, unit) is None
            ):
                continue
            table = read_table(score_path(self.corpus, name, place.kind, int(place.unit)))
            values = {k: rounded(v) for k, v in table.slice(place.row, 1).to_pylist()[0].items()}
            if values.pop("key") != key or all(value is None for value in values.values()):
                continue
            told = {
                k: v
                for k, v in read_metadata(table).items()
                if k in ("type", "model", "weights_sha256")
            }
            found[name] = values | {"measured_by": told}
        return found

    def stages(
        self,
        row: Mapping[str, Any],
        place: Place,
        mixed: Mapping[str, Any] | None,
        preferences: Sequence[Life],
    ) -> list[Life]:
        """What each stage did with the pair, and by which rule; `not run yet` where it has not."""
        maker = STAGE_OF_KIND[place.kind]
        if not row["kept"]:
            reason = str(row["reason"])
            settings = self.settings.get("fetch", {})
            rule = fetch_rule(reason, row, settings) if maker == "fetch" else Rule()
            return [step(str(row["stage"] or maker), DROPPED, reason, rule)]
        steps = [step(maker, KEPT)]
        if "filter" not in self.settings:
            return [*steps, step("filter", NOT_RUN)]
        verdict = next(iter(select_verdicts(self.corpus, [row["key"]])), None)
        if verdict is None:  # the verdicts are of other shards
            return [*steps, step("filter", NOT_RUN)]
        if not verdict["kept"]:
            reason = str(verdict["reason"])
            rules = self.settings["filter"]["filter"]
            return [
                *steps,
                step("filter", DROPPED, reason, filter_rule(self.corpus, reason, verdict, rules)),
            ]
        steps.append(step("filter", KEPT))
        if mixed is None:
            return [*steps, step("mix", NOT_RUN)]
        if not mixed["kept"]:
            reason = str(mixed["reason"])
            return [
                *steps,
                step("mix", DROPPED, reason, mix_rule(reason, row, self.settings["mix"])),
            ]
        steps.append(step("mix", KEPT))
        if place.kind == "stylized" and not self.has_pairs:
            return [*steps, step("pairs", NOT_RUN)]
        return [*steps, step("pairs", "used")] if preferences else steps

    def split(self, key: str) -> tuple[str | None, Life | None]:
        """train or val, and the row of the mix."""
        if "mix" not in self.settings:
            return None, None
        columns = ["key", "kept", "split", "reason"]
        for row in select_rows(self.corpus / MIX, "key", [key], columns):
            return row["split"], row
        return None, None

    def training_shard(self, split: str | None, key: str) -> str | None:
        """The training shard that has the pair."""
        for path in sorted((self.corpus / split).glob("*.parquet")) if split else ():
            if select_rows(path, "key", [key], ["key"]):
                return f"{split}/{path.stem}.tar"
        return None

    def children(self, key: str) -> list[Life]:
        """The stylized pairs that were made of a raw one, and what became of them."""
        import pyarrow.compute as pc

        found = []
        columns = ["key", "parent", "reference", "kept", "stage", "reason"]
        for kind, unit, table in committed_tables(self.corpus, columns):
            if kind == "stylized":
                for row in table.filter(pc.equal(table["parent"], key)).to_pylist():
                    found.append(row | {"place": f"{kind}/{unit}", "split": None})
        children = {row["key"]: row for row in found}
        if "filter" in self.settings:
            for verdict in select_verdicts(self.corpus, list(children)):
                names = ("kept", "stage", "reason")
                children[verdict["key"]].update({name: verdict[name] for name in names})
        if "mix" in self.settings:
            columns = ["key", "kept", "split", "stage", "reason"]
            for mixed in select_rows(self.corpus / MIX, "key", list(children), columns):
                children[mixed["key"]].update(mixed)
        for child in found:
            del child["parent"]
            child["style"] = style_of(child["reference"]) if child["reference"] else None
        return found

    def preferences(self, key: str) -> list[Life]:
        """The preference pairs in which a pair is chosen or rejected."""
        import pyarrow.compute as pc

        found = []
        for path in (
            sorted((self.corpus / "preferences").glob("*.parquet")) if self.has_pairs else ()
        ):
            table = read_table(path, ["key", "chosen", "rejected", "margin"])
            sides = pc.or_(pc.equal(table["chosen"], key), pc.equal(table["rejected"], key))
            for row in table.filter(sides).to_pylist():
                role = "chosen" if row["chosen"] == key else "rejected"
                other = row["rejected"] if role == "chosen" else row["chosen"]
                found.append(
                    {"key": row["key"], "role": role, "other": other, "margin": row["margin"],
                     "place": f"preferences/{path.stem}.tar"}
                )  # fmt: skip
        return found


def select_verdicts(corpus: Path, keys: list[str]) -> list[Life]:
    """The verdicts of pairs, with the scores that decided."""
    return select_rows(corpus / VERDICTS, "key", keys)


def step(stage: str, outcome: str, reason: str | None = None, rule: Rule | None = None) -> Life:
    """What one stage did."""
    return {"stage": stage, "outcome": outcome, "reason": reason, **(rule or Rule()).fields()}


def describe_outcome(life: Mapping[str, Any]) -> str:
    """Where the pair ended, in one line."""
    last = next(one for one in reversed(life["stages"]) if one["stage"] != "pairs")
    if last["outcome"] == DROPPED:
        return f"dropped by {last['stage']}: {last['reason']}"
    if last["outcome"] == NOT_RUN:
        return f"kept so far; {last['stage']} has not run yet"
    return f"in {life['training_shard'] or life['split']}"
