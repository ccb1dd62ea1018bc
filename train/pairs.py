"""On-policy preference pairs: best-vs-worst samples of a model, ranked by frozen scorers.

For a prompt and a style of the corpus the model draws several images. Text score (image and prompt)
and style score (image and a training image of the style) are combined by their harmonic mean; the best and
the worst become a pair if their scores differ by at least the margin. The folder has the layout of a corpus's
`preferences/`, so that `stylear train dpo --pairs` reads it.

J jobs, S samples of a job, K style tokens, D the decoder's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stylear.console import Bar, say
from stylear.curate.corpus.records import canonical_json
from stylear.curate.corpus.shards import shard_paths
from stylear.curate.corpus.tars import write_tar
from stylear.device import pick_device
from stylear.encoders.clip import ClipEncoder
from stylear.errors import CorpusError
from stylear.evaluation.metrics import harmonic_mean
from stylear.model.chameleon import describe_lineage
from stylear.model.open import find_model, load_model
from stylear.model.style_model import StyleModel
from stylear.pair import digest
from stylear.sampling.generate import decode_codes, sample_codes
from stylear.sampling.grid import encode_png
from stylear.train.data import EncodedSet, open_encoded
from stylear.train.settings import PairsSettings
from stylear.weights.files import read_json, write_json

FOLDER, MANIFEST = "preferences", "pairs.json"
SHARD_JOBS = 64
DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt, and the row of the training image that shows its style."""

    caption: str
    group: str
    row: int


def run(settings: PairsSettings) -> Path:
    """Sample images, score them and write pairs; returns the folder. An interrupted run resumes.

    Raises CorpusError if the corpora have no stylized pairs, or if no pair reaches the margin.
    """
    device = pick_device(settings.device)
    model = load_model(find_model(settings.model), device)
    data = open_encoded(
        model, settings.corpus, "train", settings.encoded or settings.out / "encoded", copies=1
    )
    jobs = plan_jobs(data, settings)
    inputs = {**settings.model_dump(mode="json", exclude={"out", "encoded", "device"})}
    key = digest("on-policy pairs", canonical_json(inputs), canonical_json(describe_lineage(model)))
    judge = ClipEncoder.open(settings.judge, device=device)
    folder = settings.out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with Bar("pairs", total=len(jobs) * settings.samples, unit="pictures") as bar:
        for number, start in enumerate(range(0, len(jobs), SHARD_JOBS)):
            part = jobs[start : start + SHARD_JOBS]
            path = folder / f"{number:05d}.tar"
            note = path.with_suffix(".json")
            if not (path.is_file() and note.is_file() and read_json(note).get("key") == key):
                shard_pairs = list(draw_pairs(model, judge, data, part, start, settings, bar))
                write_tar(path, (member for members, _ in shard_pairs for member in members))
                write_json(note, {"key": key, "rows": [row for _, row in shard_pairs]})
            else:
                bar.advance(len(part) * settings.samples)
            rows += read_json(note)["rows"]
    if not rows:
        raise CorpusError(
            f"{settings.model}: no pair of its samples reaches the margin {settings.margin:g}",
            hint="draw more samples (--samples), or lower --margin",
        )
    margins = [row["margin"] for row in rows]
    write_json(
        settings.out / MANIFEST,
        {
            "settings": inputs,
            "model": describe_lineage(model),
            "judge": {"name": judge.name, "sha256": judge.weights_sha256},
            "jobs": len(jobs),
            "pairs": len(rows),
            "mean_margin": round(float(np.mean(margins)), DECIMALS),
        },
    )
    say(f"{len(rows)} pairs of {len(jobs)} prompts, mean margin {np.mean(margins):.3f}")
    return settings.out


def plan_jobs(data: EncodedSet, settings: PairsSettings) -> list[Job]:
    """Draw prompts of the corpus, each with one of its styles."""
    stylized = sorted({row["group"] for row in data.rows if row["kind"] == "stylized"})
    if not stylized:
        raise CorpusError(
            f"{', '.join(map(str, settings.corpus))}: expected stylized pairs in train/, found none"
        )
    captions = sorted({row["caption"] for row in data.rows})
    rng = np.random.default_rng(settings.seed)
    jobs = []
    for number in range(settings.prompts):
        group = stylized[number % len(stylized)]
        caption = captions[int(rng.integers(len(captions)))]
        jobs.append(Job(caption, group, int(data.groups[group][0])))
    return jobs


def draw_pairs(
    model: StyleModel,
    judge: ClipEncoder,
    data: EncodedSet,
    jobs: Sequence[Job],
    start: int,
    settings: PairsSettings,
    bar: Bar,
) -> Iterator[tuple[list[tuple[str, bytes]], dict[str, Any]]]:
    """Tar members and row of each pair of these jobs; `start` is the index of the first job."""
    pictures = draw_samples(model, data, jobs, start, settings, bar)
    style_images = judge.embed_images(
        judge.preprocess([decode_training_image(model, data, j) for j in jobs])
    )
    texts = judge.embed_texts([job.caption for job in jobs])
    drawn = judge.embed_images(judge.preprocess(pictures)).view(len(jobs), settings.samples, -1)
    text = (drawn * texts[:, None]).sum(-1).cpu()  # (J, S)
    style = (drawn * style_images[:, None]).sum(-1).cpu()
    scores = harmonic_mean(text, style)
    best, worst = scores.argmax(1).tolist(), scores.argmin(1).tolist()
    for i, job in enumerate(jobs):
        high, low = float(scores[i, best[i]]), float(scores[i, worst[i]])
        if high - low < settings.margin or high == low:
            continue
        key = digest("on-policy pair", settings.seed, start + i)
        row = {
            "key": key,
            "caption": job.caption,
            "reference": job.group,
            "chosen_score": round(high, DECIMALS),
            "rejected_score": round(low, DECIMALS),
            "margin": round(high - low, DECIMALS),
        }
        members = [
            (f"{key}.{side}.png", encode_png(pictures[i * settings.samples + chosen]))
            for side, chosen in (("chosen", best[i]), ("rejected", worst[i]))
        ]
        members += [
            (f"{key}.txt", job.caption.encode()),
            (f"{key}.json", canonical_json(row).encode()),
        ]
        yield members, row


@torch.inference_mode()
def draw_samples(
    model: StyleModel,
    data: EncodedSet,
    jobs: Sequence[Job],
    start: int,
    settings: PairsSettings,
    bar: Bar,
) -> list[Image.Image]:
    """The images of these jobs, `samples` consecutive ones per job; each depends only on job and seed."""
    pictures: list[Image.Image] = []
    samples = [(job, start + n, s) for n, job in enumerate(jobs) for s in range(settings.samples)]
    for first in range(0, len(samples), settings.sampling_batch):
        part = samples[first : first + settings.sampling_batch]
        styles: list[Tensor | None] = [None] * len(part)
        if model.resampler is not None and data.features is not None:
            features = data.features[[job.row for job, _, _ in part]]
            styles = list(model.resampler(features.float().to(model.device)))
        draws = torch.stack(
            [
                torch.rand(*model.grid, generator=make_generator(settings.seed, number, sample))
                for _, number, sample in part
            ]
        ).double()
        codes = sample_codes(
            model.decoder,
            model.layout,
            [model.encode_prompt(job.caption) for job, _, _ in part],
            styles,
            draws,
            guidance=settings.guidance,
            top_k=settings.top_k,
            temperature=settings.temperature,
        )
        pictures += decode_codes(model, codes)
        bar.advance(len(part))
    return pictures


def make_generator(seed: int, number: int, sample: int) -> torch.Generator:
    """The random generator of one sample of one job."""
    return torch.Generator().manual_seed(int(digest("sample", seed, number, sample)[:15], 16))


@torch.inference_mode()
def decode_training_image(model: StyleModel, data: EncodedSet, job: Job) -> Image.Image:
    """The training image that shows a job's style, decoded from its VQ codes."""
    height, width = model.grid
    return decode_codes(model, data.codes[job.row, :1].view(1, height, width).long())[0]


def list_pair_shards(folder: Path) -> list[Path]:
    """The shards of a folder of on-policy pairs. Raises CorpusError if it is unfinished."""
    if not (folder / MANIFEST).is_file():
        raise CorpusError(
            f"{folder}: expected finished preference pairs with {MANIFEST}, found none",
            hint="make them with `stylear train pairs --model RUN --corpus CORPUS --out PAIRS`",
        )
    return shard_paths(folder / FOLDER)
