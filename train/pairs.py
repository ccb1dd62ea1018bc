"""On-policy preference pairs: best-vs-worst samples of a model, ranked by frozen scorers.

For a prompt and a style of the corpus the model draws several images. Text score (image and prompt)
and style score (image and training images of the style) are combined by their harmonic mean; the best and
the worst become a pair if their scores differ by at least the margin. The folder has the layout of a corpus's
`preferences/`, so that `stylear train dpo --pairs` reads it, and a manifest, pairs.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stylear.console import Bar, say
from stylear.curate.corpus.parquet import file_sha256
from stylear.curate.corpus.records import canonical_json
from stylear.curate.corpus.shards import shard_paths
from stylear.curate.corpus.tars import write_tar
from stylear.device import pick_device
from stylear.errors import CorpusError, SettingsChanged
from stylear.model.lineage import describe_lineage
from stylear.model.open import find_model, load_model
from stylear.model.style_model import StyleModel
from stylear.pair import digest
from stylear.sampling.grid import encode_png
from stylear.train.data import EncodedSet, open_encoded
from stylear.train.reference import hash_policy
from stylear.train.rewards import Scorers, choose_scorers, open_scorers
from stylear.train.rollout import (
    Job,
    Sampling,
    StylePictures,
    decode_in_batches,
    draw_codes,
    plan_jobs,
)
from stylear.train.settings import PairsSettings
from stylear.weights.files import hash_tensors, read_json, write_json

FOLDER, MANIFEST = "preferences", "pairs.json"
SHARD_JOBS = 64
DECIMALS = 6
Row = dict[str, Any]
# of the settings, these change no byte of the pairs, or are known by their hashes
NO_INPUTS = {"out", "encoded", "device", "sampling_batch", "corpus", "model", "judge", "csd"}


def run(settings: PairsSettings) -> Path:
    """Sample images, score them and write pairs; returns the folder. An interrupted run resumes.

    Raises CorpusError if the corpora have no stylized pairs, or if no pair reaches the margin;
    SettingsChanged if the folder has pairs of another model, corpus or other settings.
    """
    device = pick_device(settings.device)
    settings = choose_scorers(settings, settings.corpus)
    model = load_model(find_model(settings.model), device)
    cache = settings.encoded or settings.out / "encoded"
    data = open_encoded(model, settings.corpus, "train", cache, features=settings.features)
    jobs = plan_jobs(data, settings.prompts, settings.seed)
    scorers = open_scorers(settings, device)
    inputs = describe_inputs(model, scorers, settings)
    key = digest("on-policy pairs", canonical_json(inputs))
    folder = settings.out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    check_key(settings.out, key)
    styles = StylePictures(model, data, settings.style_images)
    rows: list[Row] = []
    files: dict[str, dict[str, Any]] = {}
    with Bar("pairs", total=len(jobs) * settings.samples, unit="pictures") as bar:
        for number, start in enumerate(range(0, len(jobs), SHARD_JOBS)):
            part = jobs[start : start + SHARD_JOBS]
            path = folder / f"{number:05d}.tar"
            note = path.with_suffix(".json")
            if not is_finished(path):
                pairs = list(draw_pairs(model, scorers, data, styles, part, settings, bar))
                tar = write_tar(path, (member for members, _ in pairs for member in members))
                written = {"bytes": tar.bytes, "sha256": tar.sha256}
                write_json(note, {"key": key, **written, "rows": [row for _, row in pairs]})
            else:
                bar.skip(len(part) * settings.samples)
            recorded = read_json(note)
            rows += recorded["rows"]
            files[f"{FOLDER}/{path.name}"] = {name: recorded[name] for name in ("bytes", "sha256")}
    if not rows:
        raise CorpusError(
            f"{settings.model}: no pair of its samples reaches the margin {settings.margin:g}",
            hint="draw more samples (--samples), or lower --margin",
        )
    margins = [row["margin"] for row in rows]
    write_json(
        settings.out / MANIFEST,
        {
            "key": key,
            **inputs,
            "lineage": describe_lineage(model),
            "jobs": len(jobs),
            "pairs": len(rows),
            "mean_margin": round(float(np.mean(margins)), DECIMALS),
            "files": files,
        },
    )
    say(f"{len(rows)} pairs of {len(jobs)} prompts, mean margin {np.mean(margins):.3f}")
    return settings.out


def describe_inputs(model: StyleModel, scorers: Scorers, settings: PairsSettings) -> dict[str, Any]:
    """Everything that determines the pairs: hashes of model, corpora and scorers, and the settings."""
    return {
        "settings": settings.model_dump(mode="json", exclude=NO_INPUTS),
        "policy_hash": hash_policy(model),
        "vq_sha256": hash_tensors(model.vq.state_dict()),
        "corpora": [describe_corpus(corpus) for corpus in settings.corpus],
        "scorers": scorers.describe(),
    }


def describe_corpus(corpus: Path) -> dict[str, str]:
    """A corpus's name, and the SHA-256 of its manifest; before it has one, a hash of its shards."""
    manifest = corpus / "manifest.json"
    if manifest.is_file():
        sha256 = file_sha256(manifest)
    else:
        sha256 = digest("shards", *(file_sha256(shard) for shard in shard_paths(corpus / "train")))
    return {"name": corpus.name, "sha256": sha256}


def check_key(out: Path, key: str) -> None:
    """Raise SettingsChanged if a folder holds pairs that were made from other inputs."""
    for note in sorted((out / FOLDER).glob("*.json")):
        if read_json(note).get("key") != key:
            raise SettingsChanged(
                f"{out}: expected pairs of this model, corpus and settings, found others",
                hint="give another --out, or remove the old pairs",
            )


def is_finished(path: Path) -> bool:
    """Whether a shard and its note are complete; the note is written after the shard."""
    note = path.with_suffix(".json")
    return note.is_file() and path.is_file() and path.stat().st_size == read_json(note).get("bytes")


def draw_pairs(
    model: StyleModel,
    scorers: Scorers,
    data: EncodedSet,
    styles: StylePictures,
    jobs: Sequence[Job],
    settings: PairsSettings,
    bar: Bar,
) -> Iterator[tuple[list[tuple[str, bytes]], Row]]:
    """Tar members and row of each pair of these jobs."""
    sampling = Sampling(
        seed=settings.seed,
        samples=settings.samples,
        guidance=settings.guidance,
        style_guidance=settings.style_guidance,
        top_k=settings.top_k,
        temperature=settings.temperature,
        batch_size=settings.sampling_batch,
    )
    codes = draw_codes(model, data, jobs, sampling, bar.advance)
    pictures = decode_in_batches(model, codes, settings.sampling_batch)
    scores = scorers.score(
        pictures, [job.caption for job in jobs], [styles.of(job.group) for job in jobs]
    )  # (J, S)
    best, worst = scores.argmax(1).tolist(), scores.argmin(1).tolist()
    for i, job in enumerate(jobs):
        high, low = (round(float(scores[i, pick[i]]), DECIMALS) for pick in (best, worst))
        margin = round(high - low, DECIMALS)
        if margin < settings.margin or margin == 0:
            continue
        key = digest("on-policy pair", settings.seed, job.number)
        row = {
            "key": key,
            "caption": job.caption,
            "reference": job.group,
            "style_key": data.read_column("key", [job.row])[0],
            "chosen_score": high,
            "rejected_score": low,
            "margin": margin,
        }
        members = [
            (f"{key}.{side}.png", encode_png(pictures[i * settings.samples + pick]))
            for side, pick in (("chosen", best[i]), ("rejected", worst[i]))
        ]
        members += [
            (f"{key}.txt", job.caption.encode()),
            (f"{key}.json", canonical_json(row).encode()),
        ]
        yield members, row


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of on-policy pairs. Raises CorpusError if the pairs are unfinished."""
    if not (folder / MANIFEST).is_file():
        raise CorpusError(
            f"{folder}: expected finished preference pairs with {MANIFEST}, found none",
            hint="make them with `stylear train pairs --model RUN --corpus CORPUS --out PAIRS`",
        )
    return read_json(folder / MANIFEST)


def list_pair_shards(folder: Path) -> list[Path]:
    """The shards of a folder of on-policy pairs. Raises CorpusError if it is unfinished or incomplete."""
    paths = []
    for name, recorded in read_manifest(folder)["files"].items():
        size = (folder / name).stat().st_size if (folder / name).is_file() else None
        if size != recorded["bytes"]:
            raise CorpusError(
                f"{folder / name}: expected {recorded['bytes']:,} bytes as in {MANIFEST}, found"
                f" {'no file' if size is None else f'{size:,}'}",
                hint="run the same `stylear train pairs` command again: it rebuilds what is missing",
            )
        paths.append(folder / name)
    return paths
