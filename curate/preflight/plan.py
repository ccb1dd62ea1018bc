"""The plan of a run: for each stage the number of pairs, their size, the time, and what would be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stylear.curate.corpus.candidates import parse_style
from stylear.curate.corpus.layout import CHEAP, PLAN_STAGE, STAGES
from stylear.curate.corpus.ledger import ALL, Entry, StageInputs, stage_family
from stylear.curate.preflight.checks import Check, human_bytes
from stylear.curate.preflight.rates import find_rate
from stylear.curate.recipe.synthesizers import needs_content
from stylear.curate.references import reference_files
from stylear.curate.stage import Build
from stylear.errors import SettingsChanged, StylearError

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

BYTES_PER_PIXEL = {"png": 1.8, "jpg": 0.4, "webp": 1.3}  # typical of photos (our choice)
SAMPLE_BYTES = 4096  # headers, caption, JSON and table row of a sample (our choice)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a run would do in one stage; None if a number is not known."""

    stage: str
    committed: int  # units of earlier runs
    pairs: int | None  # that the stage handles in total
    new_pairs: int | None  # that are still missing
    bytes: int | None  # that the new pairs add to the corpus
    seconds: float | None
    rate_from: str | None
    next: str
    is_estimate: bool = False  # whether `pairs` is an upper bound

    def row(self) -> dict[str, Any]:
        """For a table."""
        most = "up to " if self.is_estimate else ""
        return {
            "stage": self.stage,
            "committed": self.committed,
            "pairs": "unknown" if self.pairs is None else f"{most}{self.pairs:,}",
            "adds": "unknown" if self.bytes is None else f"{most}{human_bytes(self.bytes)}",
            "time": "unknown" if self.seconds is None else human_time(self.seconds),
            "measured": self.rate_from,
            "next": self.next,
        }

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def plan_stages(
    build: Build,
    checks: Sequence[Check],
    current_inputs: Mapping[str, StageInputs],
    redo: str | None = None,
) -> list[StagePlan]:
    """One plan per stage. `current_inputs` are those of the expensive stages that already have output."""
    again = STAGES[STAGES.index(redo) :] if redo in STAGES else ()
    changed = find_changes(build, current_inputs)
    counts = estimate_pairs(build, checks, again)
    return [
        plan_stage(build, stage, counts[stage], changed.get(stage), again=stage in again)
        for stage in STAGES
    ]


def plan_stage(
    build: Build, stage: str, pairs: int | None, changed: SettingsChanged | None, *, again: bool
) -> StagePlan:
    """The plan of one stage."""
    units = committed_units(build, stage)
    done = 0 if again else sum(entry.rows_in for entry in units)
    if stage == "score" and units:  # an entry for each scorer and shard
        done //= max(1, len({entry.stage for entry in units}))
    finished = not again and is_finished(build, stage)
    if finished and stage not in CHEAP:
        left: int | None = 0
    else:
        left = None if pairs is None else max(0, pairs - (0 if stage in CHEAP else done))
    rate = find_rate(stage, build)
    seconds = None
    if left == 0:
        seconds = 0.0
    elif left is not None and rate is not None:
        seconds = left / rate.pairs_per_s
    return StagePlan(
        stage,
        len(units),
        pairs,
        left,
        estimate_bytes(build, stage, left),
        seconds,
        rate.measured_by if rate is not None and seconds else None,
        describe_next(build, stage, units, changed, left, again=again),
        is_estimate=bool(pairs) and not finished and stage != "fetch",
    )


def describe_next(
    build: Build,
    stage: str,
    units: Sequence[Entry],
    changed: SettingsChanged | None,
    left: int | None,
    *,
    again: bool,
) -> str:
    """What a run would do with the existing output of a stage."""
    if again or not units:
        return "build"
    if changed is not None:
        return f"stop: {changed.message}"
    if stage in CHEAP:
        return "redo if its settings or inputs changed"
    return "keep, add what is new" if left == 0 else "continue"


def committed_units(build: Build, stage: str) -> list[Entry]:
    """The committed units of a stage; a stage without shards has one unit."""
    names = [name for name in build.ledger.stages() if stage_family(name) == stage]
    names = [name for name in names if name != PLAN_STAGE]
    entries = [entry for name in names for entry in build.ledger.entries(name)]
    return [entry for entry in entries if entry.unit != ALL] or entries


def is_finished(build: Build, stage: str) -> bool:
    """Whether a stage has been finished."""
    return build.ledger.entry(stage, ALL) is not None


def find_changes(
    build: Build, current_inputs: Mapping[str, StageInputs]
) -> dict[str, SettingsChanged]:
    """The stages whose output was made with other settings, with the error that a run would raise."""
    changes: dict[str, SettingsChanged] = {}
    for stage, inputs in current_inputs.items():
        try:
            build.ledger.check_settings(stage, inputs)
        except SettingsChanged as error:
            changes[stage_family(stage)] = error
    return changes


def estimate_pairs(
    build: Build, checks: Sequence[Check], again: Sequence[str] = ()
) -> dict[str, int | None]:
    """The number of pairs of each stage: exact if it is finished, else estimated from its inputs."""
    recipe = build.recipe
    fetched = build.ledger.entry("fetch", ALL) if "fetch" not in again else None
    raw = fetched.rows_in if fetched is not None else sum_pairs(checks)
    contents = fetched.kept if fetched is not None else raw
    drawn = build.ledger.entry("synthesize", ALL) if "synthesize" not in again else None
    stylized = drawn.rows_in if drawn is not None else estimate_images(recipe, contents, checks)
    total = None if raw is None or stylized is None else raw + stylized
    groups = None if stylized is None else stylized // recipe.synthesize.candidates
    if recipe.synthesize.candidates == 1:
        groups = 0
    counts = {"fetch": raw, "synthesize": stylized, "score": total, "filter": total, "mix": total}
    return {**counts, "pairs": groups}


def sum_pairs(checks: Sequence[Check]) -> int | None:
    """The total of all sources; None if one of them is unknown."""
    sources = [check for check in checks if check.key.startswith("raw.")]
    known = [check.pairs for check in sources if check.pairs is not None]
    return sum(known) if sources and len(known) == len(sources) else None


def estimate_images(recipe: Recipe, contents: int | None, checks: Sequence[Check]) -> int | None:
    """The maximum number of images to synthesize; None if contents or references are unknown."""
    if not recipe.references:
        return 0
    spec = recipe.synthesize
    if not needs_content(spec.backend) and (spec.prompts is not None or spec.templates):
        contents = next((c.pairs for c in checks if c.key.startswith("synthesize.")), None)
    if spec.contents is not None:
        contents = spec.contents if contents is None else min(contents, spec.contents)
    try:
        references = reference_files(recipe)
    except StylearError:  # the checks report it
        return None
    if contents is None:
        return None
    groups = contents * min(spec.references_per_content, len(references))
    if spec.per_style is not None:
        styles = {parse_style(reference) for reference in references}
        quota = sum(min(spec.styles.get(style, spec.per_style), contents) for style in styles)
        groups = min(quota, contents * len(references))
    return groups * spec.candidates


def estimate_bytes(build: Build, stage: str, pairs: int | None) -> int | None:
    """The bytes that `pairs` more pairs of a stage add to the corpus; an upper bound for mix and pairs."""
    if pairs is None:
        return None
    image = image_bytes(build)
    match stage:
        case "fetch" | "synthesize" | "mix":
            return round(pairs * (image + SAMPLE_BYTES))
        case "pairs":
            return round(pairs * (2 * image + SAMPLE_BYTES))
        case "score":
            return pairs * 8 * (1 + len(build.recipe.score))
        case _:
            return pairs * 64


def image_bytes(build: Build) -> float:
    """Average bytes of a stored image: of those fetched so far, else typical for its size and format."""
    committed = [entry for entry in build.ledger.entries("fetch") if entry.unit != ALL]
    kept = sum(entry.kept for entry in committed)
    if kept:
        held = sum(int(info["bytes"]) for entry in committed for info in entry.files.values())
        return max(0.0, held / kept - SAMPLE_BYTES)
    image = build.recipe.image
    return image.size**2 * BYTES_PER_PIXEL[image.format]


def needed_bytes(plans: Sequence[StagePlan]) -> int | None:
    """The minimum that a run writes, the images of raw/ and stylized/; None if it is unknown."""
    sizes = [plan.bytes for plan in plans if plan.stage in ("fetch", "synthesize")]
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def human_time(seconds: float) -> str:
    """A human-readable duration: 45 s, 12 min, 3.5 h."""
    if seconds < 100:
        return "under 1 s" if 0 < seconds < 1 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
