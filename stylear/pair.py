"""Pair: the one record that flows through every stage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["raw", "stylized"]
Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Kept, or dropped by a stage for a reason. Reasons are short kebab-case names."""

    kept: bool = True
    stage: str | None = None
    reason: str | None = None


KEPT = Verdict()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a pair comes from: everything an auditor asks.

    `source` names the location: a URL, `folder:<path>`, `shard:<file>#<member>` or
    `synthesizer:<backend>`. `content` names what is shown; pairs of one content never cross a split.
    `details` holds what only some sources have (licence, status, seed, steps, model hashes, ...).
    """

    kind: Kind
    source: str
    content: str
    source_sha256: str | None = None  # of the bytes as they came from the source
    parent: str | None = None  # key of the raw pair whose content was stylized
    reference: str | None = None  # id of the style reference
    reference_sha256: str | None = None
    details: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """One caption and one image (encoded bytes; empty when there is none, e.g. a failed download)."""

    key: str
    caption: str
    image: bytes
    origin: Origin
    scores: Mapping[str, float] = field(default_factory=dict)
    verdict: Verdict = KEPT

    @property
    def kept(self) -> bool:
        return self.verdict.kept

    def drop(self, stage: str, reason: str) -> Pair:
        """This pair, dropped by `stage`. The first verdict stands: a dropped pair is returned as is."""
        if not self.kept:
            return self
        return replace(self, verdict=Verdict(False, stage, reason))


def digest(*parts: Scalar) -> str:
    """32 hex digits (128 bits of SHA-256) of the parts as canonical JSON: keys, ids, fingerprints."""
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def content_id(caption: str) -> str:
    """The content that a caption names: equal for captions that differ in case or spaces only."""
    return digest("content", " ".join(caption.lower().split()))


def derive_seed(key: str) -> int:
    """A 63-bit seed that depends on the key alone, so batch size and worker count change nothing."""
    return int(hashlib.sha256(f"seed:{key}".encode()).hexdigest()[:16], 16) >> 1
