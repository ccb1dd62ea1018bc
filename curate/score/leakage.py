"""The leakage score: how much of the content of its style reference an image shows.

The content of a reference is the scene that its caption describes, or its subject, cut out. The score is
the cosine of the image with that content alone: it grows with leakage, and also if prompt and reference
show similar things. `stylear evaluate` subtracts the mean over other contents from the same cosine, since it
compares models over one set of references; a score must not change when a recipe gets another reference.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stylear.console import say
from stylear.curate.recipe.base import FileNamesOnly
from stylear.curate.score.clip import ClipScorer
from stylear.curate.score.reference import cosines
from stylear.curate.score.scorer import Context, MeasuredShard
from stylear.curate.score.table import float_column
from stylear.encoders.segment import Segmenter, cut_out
from stylear.errors import SourceError
from stylear.pair import digest
from stylear.weights.files import hash_path
from stylear.weights.names import resolve_model

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from stylear.curate.references import StyleReference


class LeakageScorer(ClipScorer):
    """Cosine with the content of the style reference; null for raw pairs and references without a subject."""

    kinds = ("stylized",)

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(spec, context)
        self._contents: dict[str, Tensor] | None = None

    @classmethod
    def fingerprint_parts(cls, spec: Any) -> tuple[str, ...]:
        kind, _, name = (spec.segment or "scene").partition(":")
        checkpoint = name.partition("@")[0]
        return (
            *super().fingerprint_parts(spec),
            kind,
            hash_path(resolve_model(checkpoint)) if checkpoint else "",
        )

    @classmethod
    def reference_fingerprint(cls, spec: Any, reference: StyleReference) -> str:
        """Its image, and the scene if that is compared. Raises SourceError if no caption has one."""
        if spec.segment is not None:
            return super().reference_fingerprint(spec, reference)
        return (
            f"{super().reference_fingerprint(spec, reference)} {digest(require_scene(reference))}"
        )

    def metadata(self) -> dict[str, Any]:
        return super().metadata() | {
            "content": self.spec.map_paths(FileNamesOnly()).segment or "scene"
        }

    def columns(self, shard: MeasuredShard) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        contents = self._embed_contents() if shard.rows(self.images) else {}
        values: list[float | None] = [None] * len(shard.pairs)
        rows = {}
        for index, row in shard.rows(self.images).items():
            pair = shard.pairs[index]
            if pair.origin.reference is not None and self.context.reference(pair).id in contents:
                rows[index] = row
        if rows:
            own = [contents[str(shard.pairs[index].origin.reference)] for index in rows]
            scores = cosines(list(rows.values()), torch.stack(own))
            for index, value in zip(rows, scores, strict=True):
                values[index] = value
        return {self.spec.name: float_column(values)}, {}

    def _embed_contents(self) -> dict[str, Tensor]:
        """The content embeddings (D,) of the style references by id, on the CPU, computed once."""
        if self._contents is not None:
            return self._contents
        references = [reference for _, reference in sorted(self.context.references.items())]
        if self.spec.segment is None:
            names, scenes = (
                [reference.id for reference in references],
                [require_scene(reference) for reference in references],
            )
            beyond = zip(names, self.clip.exceeds_context(scenes), strict=True)
            if long := [name for name, too_long in beyond if too_long]:
                say(
                    f"{self.spec.name}: the captions of {', '.join(long)} are longer than the model's"
                    " context and were truncated"
                )
            embedded = (self.embed_texts([scene])[0] for scene in scenes)  # alone: see Context
            self._contents = dict(zip(names, embedded, strict=True))
        else:
            subjects = cut_out_subjects(references, self.spec.segment, self.spec.device)
            with_subject = [
                replace(reference, image=subjects[reference.id])
                for reference in references
                if reference.id in subjects
            ]
            if without := [
                reference.id for reference in references if reference.id not in subjects
            ]:
                say(
                    f"{self.spec.name}: found no subject in {', '.join(without)}; their pairs get no score"
                )
            self._contents = dict(Context(with_subject).reference_rows(self.images))
        return self._contents


def require_scene(reference: StyleReference) -> str:
    """The scene that the caption of a reference describes. Raises SourceError if it has none."""
    if reference.scene is None:
        raise SourceError(
            f"style reference {reference.path}: expected a caption that describes its scene,"
            " found none",
            hint=f"write one into {reference.path.with_suffix('.txt').name} beside it, or set"
            " `segment: grabcut` of the leakage score",
        )
    return reference.scene


def cut_out_subjects(
    references: Sequence[StyleReference], method: str, device: str = "cpu"
) -> dict[str, bytes]:
    """The subject of each reference on white, as PNG by id; references without a subject are left out."""
    segmenter, subjects = Segmenter(method, device), {}
    for reference in references:
        try:
            [mask] = segmenter([reference.image])
        except SourceError:  # no subject: the images themselves were checked when they were read
            continue
        subjects[reference.id] = encode_png(cut_out(reference.image, mask))
    return subjects


def encode_png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
