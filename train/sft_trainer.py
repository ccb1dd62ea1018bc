"""Supervised fine-tuning: style tokens in, image codes out. The loop reads top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylear.console import Bar, say, say_warning
from stylear.curate.corpus.parquet import file_sha256
from stylear.curate.corpus.shards import shard_paths
from stylear.device import pick_device
from stylear.errors import CorpusError, UsageError, WeightsError
from stylear.model.build import add_style
from stylear.model.chameleon import lineage, load_model, save_model
from stylear.model.lora import apply_lora, lora_layers, lora_parameters, merge
from stylear.model.style_model import StyleModel
from stylear.model.style_tokens import enhance
from stylear.train import checkpoint
from stylear.train.checkpoint import Metrics, Run
from stylear.train.data import EncodedSet, Step, forward_logits, open_encoded, step_generator
from stylear.train.losses import image_code_loss
from stylear.train.optim import Optimisers
from stylear.train.settings import Settings, SftSettings

VALIDATION_BATCHES = 8
SAMPLES = 6
STYLE_TOKENS = 16  # code


def run(settings: SftSettings) -> Path:
    """Train, or go on where a killed run stopped; the directory of the final model.

    Raises WeightsError, CorpusError and SettingsChanged as their modules do.
    """
    device = pick_device(settings.device)
    check_shards(settings.corpus)
    source = final_of(settings.model)
    base = load_model(source, device, with_clip=True)
    here = checkpoint.open_run("sft", settings, str(lineage(base).get("sha256", "")))
    if here.final.is_dir():
        say(f"{here.root}: already trained")
        return here.final
    found = checkpoint.last(here)
    start = 0
    if found is None:
        model = with_style(base, settings)
        adapt(model, settings)
    else:
        model, start = checkpoint.restore(found, device)
        say(f"going on from step {start}")
    cache = settings.encoded or here.root / "encoded"
    corpora, copies = settings.corpus, settings.augment_copies
    data = open_encoded(model, corpora, "train", cache, copies=copies)
    training = describe_training(settings, len(data))
    model.settings = replace(model.settings, base=made_from(base, settings, training))
    for warning in training["warnings"]:
        say_warning(warning)
    held = open_validation(model, settings, cache)
    optimisers = Optimisers(trainable(model, settings.full), settings, rates_of(settings))
    if found is not None:
        checkpoint.restore_optimisers(found, optimisers)
    set_training(model)
    beyond = False
    with Metrics(here, start) as metrics, Bar("sft", total=settings.steps, unit="steps") as bar:
        bar.advance(start)
        for step in range(start, settings.steps):
            seen = data.step(
                settings.seed,
                step,
                settings.batch_size,
                dropout=settings.condition_dropout,
                style_from=settings.style_from,
            )
            with cast(settings.precision, device):
                logits = logits_of(model, seen, settings.sigma, settings.seed, step)
                loss = image_code_loss(logits, seen.batch.codes.to(device), settings.z_loss)
            torch.autograd.backward(loss)
            norm, rate = optimisers.step(step)
            done = step + 1
            values = {"loss": loss.item(), "gradient_norm": norm, "lr": rate}
            values |= {
                "epoch": done * settings.batch_size / len(data),
                "repeated_pairs": seen.repeated_pairs,
                "tokens_beyond_context": seen.tokens_beyond_context,
            }
            if seen.tokens_beyond_context and not beyond:
                beyond = True
                say_warning(
                    f"step {done}: a caption and its picture are longer than the context of {model.name};"
                    " see tokens_beyond_context in metrics.jsonl"
                )
            if held is not None and (done % settings.validate_every == 0 or done == settings.steps):
                values["validation_loss"] = validate(model, held, settings, device)
            metrics.write(done, values)
            bar.advance(1, f"loss {values['loss']:.3f}")
            if done % settings.sample_every == 0 or done == settings.steps:
                draw_samples(here, model, held or data, done)
            if done % settings.save_every == 0 or done == settings.steps:
                checkpoint.save(here, model, optimisers, done, settings.keep)
    save_model(model.eval(), here.final)
    return here.final


def check_shards(corpora: Sequence[Path]) -> None:
    """Raise CorpusError for a corpus without training shards, before anything is written."""
    for corpus in corpora:
        if not shard_paths(corpus / "train"):
            raise CorpusError(
                f"{corpus / 'train'}: expected shards to train on, found none",
                hint="check --corpus; build one with `stylear curate run RECIPE --out CORPUS`",
            )


def final_of(model: str) -> str:
    """The model directory of a run, or what was given."""
    final = Path(model) / "final"
    return str(final) if final.is_dir() else model


def with_style(base: StyleModel, settings: SftSettings) -> StyleModel:
    """The base with style tokens as asked. Raises UsageError when it has another number of them."""
    count = settings.style_tokens
    if count is None:
        count = base.num_style_tokens or STYLE_TOKENS
    if base.num_style_tokens and base.num_style_tokens != count:
        raise UsageError(
            f"style_tokens: {base.name} has {base.num_style_tokens}, asked for {count}",
            hint=f"give --style-tokens {base.num_style_tokens}, or leave it out",
        )
    if base.num_style_tokens or count == 0:
        return base
    return add_style(base, settings.clip, count, seed=settings.seed, sizes=settings.resampler)


def describe_training(settings: Settings, pairs: int) -> dict[str, Any]:
    """What the final model records of its training: settings, pairs, and what the user was warned of."""
    kept = {"steps", "batch_size", "lr", "optimizer", "full", "seed"}
    warnings = []
    if settings.batch_size > pairs:
        warnings.append(
            f"batch_size {settings.batch_size} is more than the {pairs} pairs of the corpus; every step"
            f" repeats at least {settings.batch_size - pairs} of them"
        )
    return {**settings.model_dump(mode="json", include=kept), "pairs": pairs, "warnings": warnings}


def made_from(base: StyleModel, settings: Settings, training: Mapping[str, Any]) -> dict[str, Any]:
    """The lineage that the final model records: its base, its corpora and how it was trained."""
    corpora = []
    for corpus in settings.corpus:
        manifest = corpus / "manifest.json"
        digest = file_sha256(manifest) if manifest.is_file() else None
        corpora.append({"name": corpus.resolve().name, "manifest_sha256": digest})
    first = lineage(base)
    if settings.full and first.get("model"):
        # nothing is read from there any more: its name will do
        first["model"] = Path(str(first["model"])).name
    return {**first, "corpora": corpora, "training": dict(training)}


def adapt(model: StyleModel, settings: Settings) -> None:
    """Give a model LoRA, or none for `full`; LoRA that it has goes on as it is, or is merged for `full`."""
    adapted = next(lora_layers(model.decoder), None) is not None
    if settings.full and adapted:
        merge(model.decoder)
    elif not settings.full and not adapted:
        apply_lora(model.decoder, settings.lora_rank, seed=settings.seed)


def trainable(model: StyleModel, full: bool) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters to train, by name; all others are frozen."""
    for part in (model.decoder, model.vq):
        part.requires_grad_(False)
    if full:
        model.decoder.requires_grad_(True)
    else:
        for parameter in lora_parameters(model.decoder):
            parameter.requires_grad_(True)
    for name, parameter in model.decoder.named_parameters():
        if parameter.requires_grad:
            yield f"decoder.{name}", parameter
    if model.resampler is not None:
        for name, parameter in model.resampler.requires_grad_(True).named_parameters():
            yield f"resampler.{name}", parameter


def rates_of(settings: SftSettings) -> dict[str, float]:
    """Learning rates by prefix of a parameter's name."""
    return {} if settings.resampler_lr is None else {"resampler.": settings.resampler_lr}


def set_training(model: StyleModel) -> None:
    model.decoder.train()
    if model.resampler is not None:
        model.resampler.train()


def cast(precision: str, device: str) -> torch.autocast:
    """Automatic casting to bf16, or none."""
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=precision == "bf16")


def logits_of(model: StyleModel, seen: Step, sigma: float, seed: int, step: int) -> Tensor:
    """Logits (N, V) of a step; its noise depends on (seed, step) only."""
    tokens = None
    if seen.features is not None and len(seen.features):
        if model.resampler is None:
            raise WeightsError(f"{model.name}: expected a resampler, found none")
        tokens = model.resampler(seen.features.to(model.device))
        tokens = enhance(tokens, sigma, step_generator(seed, step))
    return forward_logits(model, seen.batch.to(model.device), tokens)


def open_validation(model: StyleModel, settings: SftSettings, cache: Path) -> EncodedSet | None:
    """The encoded val split; None when no corpus has one."""
    corpora = [corpus for corpus in settings.corpus if any((corpus / "val").glob("*.tar"))]
    return open_encoded(model, corpora, "val", cache, copies=1) if corpora else None


@torch.no_grad()
def validate(model: StyleModel, held: EncodedSet, settings: SftSettings, device: str) -> float:
    """Mean loss over at most VALIDATION_BATCHES batches, the same at every call."""
    model.decoder.eval()
    total, count = 0.0, 0
    for number in range(VALIDATION_BATCHES):
        if number * settings.batch_size >= len(held):
            break
        size = min(settings.batch_size, len(held) - number * settings.batch_size)
        seen = held.step(0, number, size, dropout=0.0, style_from=settings.style_from)
        with cast(settings.precision, device):
            logits = logits_of(model, seen, 0.0, 0, number)
            loss = image_code_loss(logits, seen.batch.codes.to(device))
        total, count = total + loss.item() * size, count + size
    model.decoder.train()
    return total / count


def draw_samples(here: Run, model: StyleModel, data: EncodedSet, step: int) -> None:
    """A strip of pictures of the first captions, in the style of pictures of the same rows."""
    from stylear.sampling.generate import decode, sample_codes

    rows = data.order(0, 0, min(SAMPLES, len(data)))
    captions = [str(data.rows[row]["caption"]) for row in rows]
    styles: list[Tensor | None] = [None] * len(rows)
    model.decoder.eval()
    with torch.no_grad():
        if data.features is not None and model.resampler is not None:
            features = data.features[rows].float().to(model.device)
            styles = list(model.resampler(features))
        draws = torch.rand(len(rows), *model.grid, generator=step_generator(0, 0))
        prompts = [model.encode_prompt(caption) for caption in captions]
        codes = sample_codes(model.decoder, model.layout, prompts, styles, draws)
        pictures = decode(model, codes)
    model.decoder.train()
    side = pictures[0].width
    from PIL import Image

    strip = Image.new("RGB", (side * len(pictures), side), "white")
    for place, picture in enumerate(pictures):
        strip.paste(picture, (place * side, 0))
    path = here.root / "samples" / f"step-{step:07d}.png"
    path.parent.mkdir(exist_ok=True)
    strip.save(path)
