"""What compares numbers and decides: filter, mix and preference pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stylear.curate.recipe.base import Settings


class Threshold(Settings):
    """Pairs outside are dropped; a percentile is taken over the stylized pairs that have the score."""

    score: str
    min: float | None = Field(None, description="Lowest value kept.")
    max: float | None = Field(None, description="Highest value kept.")
    percentile: float | None = Field(
        None, gt=0, lt=100, description="Drop this share (per cent) with the lowest values."
    )
    within: Literal["style"] | None = Field(
        None, description="Take the percentile in each style apart; null: of all stylized pairs."
    )

    @model_validator(mode="after")
    def _something(self) -> Threshold:
        if self.min is None and self.max is None and self.percentile is None:
            raise ValueError("expected min, max or percentile")
        if self.within is not None and self.percentile is None:
            raise ValueError(f"within: {self.within} needs a percentile")
        return self


class Duplicates(Settings):
    """Which images count as the same; of each group of copies the best pair stays."""

    exact: bool = Field(True, description="The same stored bytes.")
    phash_distance: int | None = Field(
        4,
        ge=0,
        le=32,
        description="Perceptual hashes at most so many bits apart; null: off (ours).",
    )


class FilterSettings(Settings):
    """Rules that compare numbers; changing them touches no image."""

    thresholds: tuple[Threshold, ...] = ()
    votes: tuple[Threshold, ...] = Field(
        (), description="Thresholds of which not each, but enough must keep a pair."
    )
    at_least: int | None = Field(
        None, ge=1, description="Votes that keep a pair; null: more than half of them."
    )
    best_of: int | None = Field(1, ge=1, description="Candidates kept of a group; null: all.")
    text_score: str | None = Field(None, description="Ranks candidates; default: first clip-text.")
    style_score: str | None = Field(
        None, description="Ranks candidates; default: first csd, else texture, else clip-image."
    )
    duplicates: Duplicates = Duplicates()
    per_content: int | None = Field(
        None, ge=1, description="Pairs kept of a content, raw and stylized apart; null: all."
    )
    per_style: int | None = Field(
        None, ge=1, description="Stylized pairs kept of a style; null: all."
    )

    @model_validator(mode="after")
    def _can_be_won(self) -> FilterSettings:
        if self.at_least is not None and self.at_least > len(self.votes):
            raise ValueError(
                f"at_least: expected at most the {len(self.votes)} votes that there are"
            )
        return self

    @property
    def votes_needed(self) -> int:
        """How many votes keep a pair."""
        return len(self.votes) // 2 + 1 if self.at_least is None else self.at_least


class MixSettings(Settings):
    """Training shards."""

    raw_per_stylized: float = Field(
        3.0, ge=0, description="Raw pairs for each stylized one (paper)."
    )
    on_shortfall: Literal["warn", "fail", "scale"] = Field(
        "warn",
        description="With too few raw pairs for the ratio: say so, stop, or take fewer stylized pairs.",
    )
    val_fraction: float = Field(0.1, ge=0, lt=1, description="Share of contents and of references.")
    shard_pairs: int = Field(1000, ge=1, le=100_000, description="Pairs in a shard (ours).")


class PairsSettings(Settings):
    """Preference pairs: best against worst candidate."""

    margin: float = Field(0.02, ge=0, description="Smallest difference of harmonic means (ours).")
