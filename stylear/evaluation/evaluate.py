"""Evaluate models on style references x prompts x seeds: scores with confidence intervals.

B pictures, R references.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from stylear.console import say_warning
from stylear.encoders.clip import ClipEncoder
from stylear.encoders.preprocess import Picture
from stylear.encoders.texture import texture_descriptor, texture_similarity
from stylear.errors import UsageError
from stylear.evaluation.metrics import (
    Estimate,
    bootstrap,
    content_leakage,
    harmonic_mean,
    pair_cosine,
    prompt_recall,
    win_rate,
)
from stylear.sampling.context import describe_long_prompts, measure_prompt
from stylear.sampling.generate import BATCH_SIZE, generate
from stylear.sampling.grid import Block, Row, draw_grid, encode_png
from stylear.sampling.references import Reference
from stylear.weights.files import write_bytes, write_json

if TYPE_CHECKING:
    from stylear.model.style_model import StyleModel

METRICS = ("clip_t", "recall", "clip_i", "csd", "dino", "texture", "harmonic", "leakage")
OPTIONAL = ("csd", "dino")  # measured only if their encoder is given


@dataclass(frozen=True, slots=True)
class Sample:
    """One generated picture, its inputs and its scores."""

    model: str
    reference: str
    prompt: str
    seed: int
    picture: Image.Image
    scores: dict[str, float]  # metric -> value; NaN where it is not defined
    tokens_beyond_context: int = 0  # by how much the prompt exceeds the model's context


@dataclass
class Evaluation:
    """The samples of all models in order, with the settings and warnings of the evaluation."""

    references: list[Reference]
    prompts: list[str]
    settings: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # what limits the scores

    def warn(self, message: str | None) -> None:
        """Record a warning and print it on stderr; None is ignored."""
        if message is not None:
            self.warnings.append(message)
            say_warning(message)

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(sample.model for sample in self.samples))

    def estimates(self, model: str, *, seed: int = 0) -> dict[str, Estimate | None]:
        """Mean and 95% interval of each metric, bootstrapped over (reference, prompt) clusters of a model."""
        own = [sample for sample in self.samples if sample.model == model]
        clusters = [(sample.reference, sample.prompt) for sample in own]
        return {
            name: bootstrap([sample.scores[name] for sample in own], clusters, seed=seed)
            for name in METRICS
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per model: number of pictures, then `{"mean", "low", "high"}` or None for each metric."""
        table_rows = []
        for model in self.models:
            row: dict[str, Any] = {
                "model": model,
                "pictures": sum(sample.model == model for sample in self.samples),
            }
            for name, value in self.estimates(model).items():
                row[name] = None if value is None else _estimate_to_dict(value)
            table_rows.append(row)
        return table_rows

    def table(self) -> list[dict[str, str]]:
        """The rows as text: `mean [low, high]`, without metrics whose encoder was not given."""
        left_out = {name for name in OPTIONAL if not self.settings.get(name)}
        return [
            {
                "model": model,
                **{
                    name: str(value or "-")
                    for name, value in self.estimates(model).items()
                    if name not in left_out
                },
            }
            for model in self.models
        ]

    def subset(self, references: Iterable[str]) -> Evaluation:
        """The same evaluation on some of its references, given by id."""
        ids = set(references)
        return Evaluation(
            [reference for reference in self.references if reference.id in ids],
            self.prompts,
            self.settings,
            [sample for sample in self.samples if sample.reference in ids],
        )

    def win_rate(self, model: str, against: str, metric: str) -> Estimate | None:
        """How often `model` scores higher than `against` on the same reference, prompt and seed."""
        scores = {(s.model, s.reference, s.prompt, s.seed): s.scores[metric] for s in self.samples}
        jobs = [(r, p, seed) for name, r, p, seed in scores if name == model]
        return win_rate(
            [scores[model, *job] for job in jobs],
            [scores[against, *job] for job in jobs],
            [(reference, prompt) for reference, prompt, _ in jobs],
        )

    def summary(self) -> dict[str, Any]:
        """Settings, rows and warnings as JSON values."""
        return {"settings": self.settings, "models": self.rows(), "warnings": self.warnings}

    def write(self, out: Path) -> Path:
        """Write evaluation.json, samples.jsonl, pictures, references and grid.png; the grid's path."""
        counts: Counter[str] = Counter()
        lines = []
        for sample in self.samples:
            file = f"pictures/{sample.model}/{counts[sample.model]:04d}.png"
            counts[sample.model] += 1
            write_bytes(out / file, encode_png(sample.picture))
            line: dict[str, Any] = {"file": file, "model": sample.model}
            line |= {"reference": sample.reference, "prompt": sample.prompt, "seed": sample.seed}
            line["tokens_beyond_context"] = sample.tokens_beyond_context
            line |= {name: _to_json_number(value) for name, value in sample.scores.items()}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        for reference in self.references:
            write_bytes(out / "references" / f"{reference.id}.png", encode_png(reference.picture))
        write_bytes(out / "samples.jsonl", "".join(lines).encode())
        write_json(out / "evaluation.json", self.summary())
        write_bytes(out / "grid.png", encode_png(self.draw()))
        return out / "grid.png"

    def draw(self, *, cell_px: int = 96, blocks_across: int = 1) -> Image.Image:
        """The grid of first seeds: a row per reference, a column per prompt, a block per model."""
        first: dict[tuple[str, str, str], Image.Image] = {}
        for sample in self.samples:
            first.setdefault((sample.model, sample.reference, sample.prompt), sample.picture)
        blocks = [
            Block(
                model,
                [
                    [first.get((model, reference.id, prompt)) for prompt in self.prompts]
                    for reference in self.references
                ],
            )
            for model in self.models
        ]
        return draw_grid(
            blocks,
            rows=[Row(reference.label, reference.picture) for reference in self.references],
            columns=self.prompts,
            cell_px=cell_px,
            blocks_across=blocks_across,
        )


class Judge(Protocol):
    """An encoder that maps pictures to unit vectors."""

    name: str
    weights_sha256: str

    def preprocess(self, images: Sequence[Picture]) -> Tensor: ...

    def embed_images(self, pixels: Tensor) -> Tensor: ...


def evaluate(
    models: Iterable[StyleModel],
    references: Sequence[Reference],
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    clip: ClipEncoder,
    csd: Judge | None = None,
    dino: Judge | None = None,
    on_batch: Callable[[int], None] | None = None,
    batch_size: int = BATCH_SIZE,
    **sampling: Any,
) -> Evaluation:
    """Draw references x prompts x seeds with every model and score each picture; returns an Evaluation.

    models      models from `load_model`; a generator keeps only one in memory. A model without style tokens
                draws from the prompt alone
    references  from `stylear.sampling.references.load_styles`
    prompts     texts; seeds: integers
    clip        a `ClipEncoder`, the judge of clip_t and clip_i
    csd, dino   encoders of style and content for the metrics of these names; NaN without them
    batch_size  images drawn in one batch
    on_batch    called with the number of pictures that were finished
    sampling    keywords of `generate`: guidance, style_guidance, top_k, temperature, noise, size_px

    Scores of a picture, all without unit: `clip_t` cos(picture, prompt); `recall`, 1 where the
    picture's own prompt is the nearest to it, else 0 (NaN with one prompt); `clip_i`, `csd` and `dino`
    cos(picture, reference); `texture`, the similarity of texture statistics; `harmonic`, the harmonic mean
    of clip_t and texture, clamped at 0; `leakage`, see `content_leakage`. Prompts beyond the context of a
    model or of `clip` are drawn and scored, and reported in `warnings`.

    Raises UsageError if there is nothing to evaluate or two models have the same name. Sources: CLIP score
    (arXiv 2104.08718), recall as R-precision (arXiv 1711.10485), CSD (arXiv 2404.01292), DINOv2
    (arXiv 2304.07193); texture, harmonic mean and leakage are ours.
    """
    for name, values in (("references", references), ("prompts", prompts), ("seeds", seeds)):
        if not values:
            raise UsageError(f"{name}: expected at least one, found none")
    jobs = [(i, p, s) for i in range(len(references)) for p in prompts for s in seeds]
    reference_index = torch.tensor([i for i, _, _ in jobs])
    prompt_index = torch.tensor([list(prompts).index(p) for _, p, _ in jobs])
    texts = clip.embed_texts(list(prompts)).cpu()
    originals = [reference.picture for reference in references]
    shown, textures = _embed(clip, originals), texture_descriptor(originals)
    judges = {name: judge for name, judge in (("csd", csd), ("dino", dino)) if judge is not None}
    judged = {name: _embed(judge, originals) for name, judge in judges.items()}
    basis, contents, others = choose_leakage_basis(references, shown, clip)
    copied = content_leakage(shown, torch.arange(len(references)), contents, others).nanmean()
    result = Evaluation(
        list(references),
        list(prompts),
        {"clip": clip.name, "clip_sha256": clip.weights_sha256, "seeds": list(seeds)}
        | {name: judge.name for name, judge in judges.items()}
        | {f"{name}_sha256": judge.weights_sha256 for name, judge in judges.items()}
        | {
            "leakage_basis": basis,
            "leakage_if_copied": _to_json_number(copied),
            "sampling": sampling,
        },
    )
    result.warn(describe_truncated_texts(clip, prompts))
    for model in models:
        if model.name in result.models:
            raise UsageError(
                f"--model {model.name}: expected models of different names, found two",
                hint="rename one of the directories",
            )
        styled = model.resampler is not None
        lengths = [
            measure_prompt(model, prompt, is_styled=styled, size_px=sampling.get("size_px"))
            for prompt in prompts
        ]
        result.warn(describe_long_prompts(lengths, model.name))
        pictures = generate(
            model,
            [prompt for _, prompt, _ in jobs],
            [references[i].picture for i, _, _ in jobs] if styled else None,
            seeds=[seed for _, _, seed in jobs],
            batch_size=batch_size,
            on_batch=on_batch,
            warn=False,
            **sampling,
        )
        embedded = _embed(clip, pictures)
        own_textures = texture_similarity(texture_descriptor(pictures), textures[reference_index])
        clip_t = pair_cosine(embedded, texts[prompt_index])
        scores = {
            "clip_t": clip_t,
            "recall": prompt_recall(embedded, texts, prompt_index),
            "clip_i": pair_cosine(embedded, shown[reference_index]),
            **dict.fromkeys(OPTIONAL, torch.full((len(jobs),), torch.nan)),
            **{
                name: pair_cosine(_embed(judge, pictures), judged[name][reference_index])
                for name, judge in judges.items()
            },
            "texture": own_textures,
            "harmonic": harmonic_mean(clip_t, own_textures),
            "leakage": content_leakage(embedded, reference_index, contents, others),
        }
        for n, (i, prompt, seed) in enumerate(jobs):
            own_scores = {name: float(scores[name][n]) for name in METRICS}
            beyond = lengths[list(prompts).index(prompt)].tokens_beyond_context
            sample = Sample(
                model.name, references[i].id, prompt, seed, pictures[n], own_scores, beyond
            )
            result.samples.append(sample)
    return result


def describe_truncated_texts(clip: ClipEncoder, prompts: Sequence[str]) -> str | None:
    """A warning about prompts that the judging CLIP truncates; None if it truncates none."""
    count = sum(clip.exceeds_context(list(prompts)))
    if not count:
        return None
    return (
        f"{count} of {len(prompts)} prompts are longer than the {clip.context_length} tokens that {clip.name}"
        " reads; clip_t judges their beginning only"
    )


def choose_leakage_basis(
    references: Sequence[Reference], shown: Tensor, clip: ClipEncoder
) -> tuple[str, Tensor, Tensor]:
    """What leakage is measured against: its name, contents (R, D), and the other contents of each row (R, R).

    `scenes` if every reference has one: a picture must not be closer to the scene of its reference than to
    the other scenes. Otherwise `siblings`: not closer to its reference than to other references of the same
    style. `shown` (R, D) are the embeddings of the references.
    """
    scenes = [reference.scene for reference in references]
    if all(scenes) and len(set(scenes)) > 1:
        different = [[a != b for b in scenes] for a in scenes]
        contents = clip.embed_texts([scene for scene in scenes if scene]).cpu()
        return "scenes", contents, torch.tensor(different)
    styles = [reference.style for reference in references]
    siblings = torch.tensor([[a == b for b in styles] for a in styles])
    return "siblings", shown, siblings & ~torch.eye(len(references), dtype=torch.bool)


def _embed(judge: Judge, pictures: Sequence[Image.Image]) -> Tensor:
    parts = [
        judge.embed_images(judge.preprocess(pictures[i : i + BATCH_SIZE])).cpu()
        for i in range(0, len(pictures), BATCH_SIZE)
    ]
    return torch.cat(parts)


def _to_json_number(value: float | Tensor) -> float | None:
    """A score as JSON number; None if it is not defined."""
    return float(value) if isfinite(value) else None


def _estimate_to_dict(value: Estimate) -> dict[str, float]:
    return {"mean": value.mean, "low": value.low, "high": value.high}
