"""The leakage score: how much of what its style reference shows came along into an image.

The content of a reference is the scene that its caption tells, or its subject, cut out. The score is the
cosine of the image with that content alone: it grows with leakage, and also where prompt and reference
show alike things. `stylear evaluate` takes the mean over other contents off the same cosine, since it
compares models over one set of references; a score must not change when a recipe gets one more.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stylear.console import say
from stylear.curate.recipe.base import PathNames
from stylear.curate.score.clip import ClipScorer
from stylear.curate.score.reference import cosines
from stylear.curate.score.scorer import Context, Measured
from stylear.curate.score.table import float_column
from stylear.encoders.segment import Segmenter, cut_out
from stylear.errors import SourceError
from stylear.pair import digest
from stylear.weights.files import sha256_of
from stylear.weights.names import resolve

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from stylear.curate.references import StyleReference


class LeakageScorer(ClipScorer):
    """Cosine with the content of the style reference; null for raw pairs and where it has no subject."""

    kinds = ("stylized",)

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(spec, context)
        self._contents: dict[str, Tensor] | None = None

    @classmethod
    def identity(cls, spec: Any) -> tuple[str, ...]:
        kind, _, name = (spec.segment or "scene").partition(":")
        checkpoint = name.partition("@")[0]
        return (*super().identity(spec), kind, sha256_of(resolve(checkpoint)) if checkpoint else "")

    @classmethod
    def reads(cls, spec: Any, reference: StyleReference) -> str:
        """Its picture, or its scene as well. Raises SourceError when no caption tells a scene."""
        if spec.segment is not None:
            return super().reads(spec, reference)
        return f"{super().reads(spec, reference)} {digest(scene_of(reference))}"

    def told(self) -> dict[str, Any]:
        return super().told() | {"content": self.spec.map_paths(PathNames()).segment or "scene"}

    def columns(self, shard: Measured) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        contents = self._embedded() if shard.of(self.images) else {}
        values: list[float | None] = [None] * len(shard.pairs)
        rows = {}
        for place, row in shard.of(self.images).items():
            pair = shard.pairs[place]
            if pair.origin.reference is not None and self.context.reference(pair).id in contents:
                rows[place] = row
        if rows:
            own = [contents[str(shard.pairs[place].origin.reference)] for place in rows]
            found = cosines(list(rows.values()), torch.stack(own))
            for place, value in zip(rows, found, strict=True):
                values[place] = value
        return {self.spec.name: float_column(values)}, {}

    def _embedded(self) -> dict[str, Tensor]:
        """The content (D,) of the style references by id, on the CPU, embedded once."""
        if self._contents is not None:
            return self._contents
        references = [one for _, one in sorted(self.context.references.items())]
        if self.spec.segment is None:
            names, scenes = [one.id for one in references], [scene_of(one) for one in references]
            beyond = zip(names, self.clip.beyond_context(scenes), strict=True)
            if cut := [name for name, too_long in beyond if too_long]:
                say(
                    f"{self.spec.name}: the captions of {', '.join(cut)} are longer than its model reads"
                )
            self._contents = dict(zip(names, self.embed_texts(scenes), strict=True))
        else:
            subjects = cut_outs(references, self.spec.segment, self.spec.device)
            found = [
                replace(one, image=subjects[one.id]) for one in references if one.id in subjects
            ]
            if without := [one.id for one in references if one.id not in subjects]:
                say(
                    f"{self.spec.name}: no subject found in {', '.join(without)}; no score for them"
                )
            self._contents = dict(Context(found).of_references(self.images))
        return self._contents


def scene_of(reference: StyleReference) -> str:
    """What the caption of a reference tells. Raises SourceError when there is none."""
    if reference.scene is None:
        raise SourceError(
            f"style reference {reference.path}: expected a caption that tells what it shows,"
            " found none",
            hint=f"write one into {reference.path.with_suffix('.txt').name} beside it, or set"
            " `segment: grabcut` of the leakage score",
        )
    return reference.scene


def cut_outs(
    references: Sequence[StyleReference], method: str, device: str = "cpu"
) -> dict[str, bytes]:
    """The subject of each reference on white, as PNG by id; none where there is no subject to find."""
    segmenter, found = Segmenter(method, device), {}
    for reference in references:
        try:
            [mask] = segmenter([reference.image])
        except SourceError:  # the pictures themselves were checked when they were read
            continue
        found[reference.id] = png(cut_out(reference.image, mask))
    return found


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
