"""Settings of the scorers, each of which adds columns of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import (
    AfterValidator,
    Field,
    GetJsonSchemaHandler,
    SerializeAsAny,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from stylear.curate.entry_points import SCORERS as PLUGINS
from stylear.curate.entry_points import find_plugin
from stylear.curate.recipe.base import NAME, PathRule, Settings


def _check_name(name: str) -> str:
    """The name, unless a score table already has a column of that name."""
    if name in RESERVED:
        raise ValueError(
            f"expected a name other than {' and '.join(RESERVED)}, which are existing columns"
        )
    return name


RESERVED = ("key", "colour")
Name = Annotated[str, Field(pattern=NAME), AfterValidator(_check_name)]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
RENAMED = {"clip-style": "clip-image"}  # former type -> present type


class ScorerSettings(Settings):
    """Settings of a plug-in's scorer: subclass it and add fields. Values must be hashable."""

    name: Name = Field(description="The scorer's name: its folder in scores/ and its column.")
    type: str = Field(description="The name of the plug-in's entry point.")


class ClipTextScore(Settings):
    """Cosine of the image and its caption."""

    name: Name
    type: Literal["clip-text"]
    model: str = Field(
        "mini-clip",
        description="The CLIP model: a mini model, a directory in open_clip's layout, or ARCH/CHECKPOINT.",
    )
    batch_size: int = Field(
        64, ge=1, description="Images per batch; it affects the last digit of a score."
    )
    device: str = Field(
        "auto",
        pattern="^[a-z]+$",
        description="Type of torch device; auto: cuda if available. Each worker gets a GPU of its own.",
    )
    dtype: Dtype = Field(
        "auto", description="Precision; auto: float32 on a CPU, bfloat16 on a GPU."
    )

    def map_paths(self, rule: PathRule) -> Self:
        arch, _, checkpoint = self.model.partition("/")
        model = rule.map_name(self.model)
        if model == self.model and arch and checkpoint:  # ARCH/CHECKPOINT
            model = f"{arch}/{rule.map_name(checkpoint)}"
        return self.model_copy(update={"model": model})


class ClipImageScore(ClipTextScore):
    """Cosine of the image and its style reference (CLIP-I)."""

    type: Literal["clip-image"]  # type: ignore[assignment]


class TextureScore(Settings):
    """Similarity of texture and colour to the style reference, without a model."""

    name: Name
    type: Literal["texture"]


class PhashScore(Settings):
    """A 64-bit perceptual hash; computed even if the recipe does not name it."""

    name: Name = "phash"
    type: Literal["phash"]


class AestheticScore(ClipTextScore):
    """Predicted aesthetic rating, by a linear head on CLIP."""

    type: Literal["aesthetic"]  # type: ignore[assignment]
    model: str = Field(description="The CLIP that the head was trained on.")
    head: str = Field(description="A linear head, such as sa_0_4_vit_l_14_linear.pth.")

    def map_paths(self, rule: PathRule) -> Self:
        return super().map_paths(rule).model_copy(update={"head": rule.map_name(self.head)})


class LeakageScore(ClipTextScore):
    """Cosine of the image and the content of its style reference; higher means more leakage."""

    type: Literal["leakage"]  # type: ignore[assignment]
    segment: str | None = Field(
        None,
        pattern=r"^(grabcut|sam:.+)$",
        description="null: the content is the scene in the reference's caption; else its subject, cut out"
        " by grabcut or sam:CHECKPOINT.",
    )

    def map_paths(self, rule: PathRule) -> Self:
        changed = super().map_paths(rule)
        kind, _, checkpoint = (self.segment or "").partition(":")
        if kind != "sam":
            return changed
        return changed.model_copy(update={"segment": f"sam:{rule.map_name(checkpoint)}"})


class NearestScore(ClipTextScore):
    """Cosine of the image and its nearest neighbour of the same kind; higher means less diverse."""

    type: Literal["nearest"]  # type: ignore[assignment]


class CsdScore(ClipTextScore):
    """Cosine of the styles of the image and of its style reference."""

    type: Literal["csd"]  # type: ignore[assignment]
    model: str = Field(description="A CSD checkpoint as published.")


class DinoScore(ClipTextScore):
    """Cosine of the image and its style reference, by DINOv2."""

    type: Literal["dino"]  # type: ignore[assignment]
    model: str = Field(description="Directory of a DINOv2 model of transformers.")


class CasScore(DinoScore):
    """Distance of the content from the parent's, by DINOv2; lower is better aligned."""

    type: Literal["cas"]  # type: ignore[assignment]


SCORERS = (
    ClipTextScore,
    ClipImageScore,
    TextureScore,
    PhashScore,
    AestheticScore,
    LeakageScore,
    NearestScore,
    CsdScore,
    DinoScore,
    CasScore,
)
Score = Annotated[
    ClipTextScore
    | ClipImageScore
    | TextureScore
    | PhashScore
    | AestheticScore
    | LeakageScore
    | NearestScore
    | CsdScore
    | DinoScore
    | CasScore,
    Field(discriminator="type"),
]
BUILT_IN = tuple(str(get_args(model.model_fields["type"].annotation)[0]) for model in SCORERS)


class _PluginScore:
    """Lets a `score` entry be a plug-in's: its own model checks it; built-in types are checked as before."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        other = {
            "description": "The scorer of a plug-in, whose own model checks its settings.",
            "type": "object",
            "required": ["name", "type"],
            "properties": {
                "name": {"type": "string", "pattern": NAME},
                "type": {"type": "string", "not": {"enum": list(BUILT_IN)}},
            },
        }
        return {"anyOf": [handler(schema), other]}


def _check_score(value: Any, check_built_in: ValidatorFunctionWrapHandler) -> Any:
    """A `score` entry as its settings: of a plug-in if its type is installed and not built in."""
    if isinstance(value, ScorerSettings):
        return value
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or (model := find_plugin_settings(kind)) is None:
        return check_built_in(value)
    settings = model.model_validate(value)
    try:
        hash(settings)
    except TypeError as error:
        raise PydanticCustomError(
            "unhashable", "a plug-in's settings must be hashable: expected tuples instead of lists"
        ) from error
    return settings


def find_plugin_settings(kind: str) -> type[ScorerSettings] | None:
    """The settings of a plug-in's scorer; None for a built-in type and for one that is not installed."""
    if kind in BUILT_IN or (plugin := find_plugin(PLUGINS, kind)) is None:
        return None
    return cast("type[ScorerSettings]", plugin.settings(ScorerSettings))


AnyScore = Annotated[Score, SerializeAsAny(), WrapValidator(_check_score), _PluginScore()]
