"""Settings of filter, mix and preference pairs, which only compare numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stylear.curate.recipe.base import Settings


class Threshold(Settings):
    """Pairs outside are dropped; a percentile is computed over the stylized pairs that have the score."""

    score: str
    min: float | None = Field(None, description="Lowest value that is kept.")
    max: float | None = Field(None, description="Highest value that is kept.")
    percentile: float | None = Field(
        None, gt=0, lt=100, description="Drop this percentage, the lowest values."
    )
    within: Literal["style"] | None = Field(
        None,
        description="Compute the percentile in each style separately; null: over all stylized pairs.",
    )

    @model_validator(mode="after")
    def _check_bounds(self) -> Threshold:
        if self.min is None and self.max is None and self.percentile is None:
            raise ValueError("expected min, max or percentile")
        if self.within is not None and self.percentile is None:
            raise ValueError(f"within: {self.within} needs a percentile")
        return self


class Duplicates(Settings):
    """Which images count as duplicates; of each group the best pair is kept."""

    exact: bool = Field(True, description="Drop pairs whose stored images have the same bytes.")
    phash_distance: int | None = Field(
        4,
        ge=0,
        le=32,
        description="Drop pairs whose perceptual hashes differ in at most this many bits; null: off.",
    )


class HumanRule(Settings):
    """Pairs that reviewers dropped in `stylear curate review` are dropped."""

    at_least: int = Field(1, ge=1, description="Number of reviewers who must drop a pair.")
    share: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="More than this share of a pair's reviewers must drop it.",
    )
    require: bool = Field(
        False, description="Drop pairs that fewer than at_least reviewers have judged, too."
    )


class FilterSettings(Settings):
    """The rules of the filter; changing them changes no image."""

    human: HumanRule | None = Field(
        HumanRule(),
        description="Rule for the decisions of reviewers; null: their answers are ignored.",
    )
    thresholds: tuple[Threshold, ...] = ()
    votes: tuple[Threshold, ...] = Field(
        (), description="Thresholds of which a pair must pass at_least, not all."
    )
    at_least: int | None = Field(
        None, ge=1, description="Number of votes that a pair must pass; null: more than half."
    )
    best_of: int | None = Field(1, ge=1, description="Candidates kept in each group; null: all.")
    text_score: str | None = Field(
        None, description="The text score that ranks candidates; default: the first clip-text."
    )
    style_score: str | None = Field(
        None,
        description="The style score that ranks candidates; default: the first csd, texture or clip-image.",
    )
    duplicates: Duplicates = Duplicates()
    per_content: int | None = Field(
        None,
        ge=1,
        description="Maximum number of pairs per content, raw and stylized separately; null: no limit.",
    )
    per_style: int | None = Field(
        None, ge=1, description="Maximum number of stylized pairs per style; null: no limit."
    )

    @model_validator(mode="after")
    def _check_votes(self) -> FilterSettings:
        if self.at_least is not None and self.at_least > len(self.votes):
            raise ValueError(f"at_least: expected at most {len(self.votes)}, the number of votes")
        return self

    @property
    def votes_needed(self) -> int:
        """How many votes a pair needs."""
        return len(self.votes) // 2 + 1 if self.at_least is None else self.at_least


class MixSettings(Settings):
    """The training shards."""

    raw_per_stylized: float = Field(
        3.0, ge=0, description="Number of raw pairs for each stylized one (as in the paper)."
    )
    on_shortfall: Literal["warn", "fail", "scale"] = Field(
        "warn",
        description="If there are too few raw pairs for the ratio: warn, fail, or take fewer stylized pairs.",
    )
    val_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of contents and of references in the validation split."
    )
    shard_pairs: int = Field(1000, ge=1, le=100_000, description="Pairs per shard.")


class PairsSettings(Settings):
    """Preference pairs: the best against the worst candidate."""

    margin: float = Field(0.02, ge=0, description="Minimum difference of the two harmonic means.")
    human: Literal["first", "only", "ignore"] = Field(
        "first",
        description="first: reviewers' preferences precede those by scores; only: no others; or ignore.",
    )
