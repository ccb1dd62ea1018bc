"""What compares numbers and decides: filter, mix and preference pairs."""

from __future__ import annotations

from pydantic import Field, model_validator

from curate.recipe.base import Settings


class Threshold(Settings):
    """Pairs outside are dropped; a percentile is taken over the stylized pairs that have the score."""

    score: str
    min: float | None = Field(None, description="Lowest value kept.")
    max: float | None = Field(None, description="Highest value kept.")
    percentile: float | None = Field(
        None, gt=0, lt=100, description="Drop this share (per cent) with the lowest values."
    )

    @model_validator(mode="after")
    def _something(self) -> Threshold:
        if self.min is None and self.max is None and self.percentile is None:
            raise ValueError("expected min, max or percentile")
        return self


class Duplicates(Settings):
    """Which images count as the same."""

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
    best_of: int | None = Field(1, ge=1, description="Candidates kept of a group; null: all.")
    text_score: str | None = Field(None, description="Ranks candidates; default: first clip-text.")
    style_score: str | None = Field(
        None, description="Ranks candidates; default: first texture, else first clip-image."
    )
    duplicates: Duplicates = Duplicates()


class MixSettings(Settings):
    """Training shards."""

    raw_per_stylized: float = Field(
        3.0, ge=0, description="Raw pairs for each stylized one (paper)."
    )
    val_fraction: float = Field(0.1, ge=0, lt=1, description="Share of contents and of references.")
    shard_pairs: int = Field(1000, ge=1, le=100_000, description="Pairs in a shard (ours).")


class PairsSettings(Settings):
    """Preference pairs: best against worst candidate."""

    margin: float = Field(0.02, ge=0, description="Smallest difference of harmonic means (ours).")
