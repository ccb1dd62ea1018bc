"""`stylear demo`: the whole workflow offline, with the mini models, ending with one HTML page.

Like the command line it sits on top of all three packages; only the command line imports it. Every step is
one that a user would run, and prints the equivalent command. An interrupted demo resumes where it stopped.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.console import Bar, say
from stylear.embedded import find_manifest
from stylear.mini.references import EVALUATION_SCENES
from stylear.mini.sampling import STYLED_SAMPLING
from stylear.mini.styles import HOUSE_FAMILIES, UNSEEN_FAMILIES

if TYPE_CHECKING:
    from stylear.evaluation.evaluate import Evaluation

PORT = 8917  # fixed: URLs are part of the keys, so another port would give another corpus
STEPS = 6
SERVED = 24  # drawings that are fetched over HTTP
HOUSE = [f"{family}--h{number}" for family in HOUSE_FAMILIES for number in EVALUATION_SCENES]
UNSEEN = [f"{family}--h{number}" for family in UNSEEN_FAMILIES for number in EVALUATION_SCENES]
PROMPTS = ["a red apple", "a cat face", "a red heart", "the sun", "a mushroom", "a house"]
SEEDS = [0, 1, 2]


def run_demo(out: Path) -> Path:
    """Run every step, and return the path of the page. At most 8 minutes on 2 cores."""
    from stylear.demo.page import write_page

    timer = StepTimer(out / "seconds.json")
    corpus = out / "corpus"
    with timer.step("corpus", f"stylear curate run demo --out {corpus}"):
        build_corpus(out, corpus)
    with timer.step("audit", f"stylear curate audit {corpus}"):
        audit_corpus(corpus)
    sft = out / "sft"
    with timer.step("sft", f"stylear train sft --config train-demo-sft --out {sft}"):
        train_model("sft", out)
    pairs, dpo = out / "pairs", out / "dpo"
    with timer.step("pairs", f"stylear train pairs --config train-demo-pairs --out {pairs}"):
        train_model("pairs", out)
    with timer.step("dpo", f"stylear train dpo --config train-demo-dpo --out {dpo}"):
        train_model("dpo", out)
    models = {
        "base": "mini-ar",
        "shipped": "mini-stylear",
        "after SFT": str(sft / "final"),
        "after DPO": str(dpo / "final"),
    }
    with timer.step("evaluate", "stylear evaluate --model ... --styles ... --prompt ..."):
        evaluation = evaluate_models(models)
        evaluation.write(out / "evaluation")
    parts = split_evaluation(evaluation)
    page = write_page(out, evaluation, parts, timer.seconds)
    from stylear.console import emit_table

    for title, part in parts:
        say(f"\n{title}")
        emit_table(part.table())
    say(f"\n{timer.total() / 60:.1f} minutes")
    print(f"page: {page}")
    return page


def split_evaluation(evaluation: Evaluation) -> list[tuple[str, Evaluation]]:
    """Split the evaluation into house styles and styles that no model was trained on."""
    return [
        ("House styles, references that are not in the corpus", evaluation.subset(HOUSE)),
        ("Styles that no model was trained on", evaluation.subset(UNSEEN)),
    ]


class StepTimer:
    """Announces steps and records how many seconds each took, across restarts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        self.number = 0

    @contextmanager
    def step(self, name: str, command: str) -> Iterator[None]:
        """Run the block as step `name`; `command` is the equivalent command line."""
        self.number += 1
        say(f"\n[{self.number}/{STEPS}] {command}")
        started = time.monotonic()
        yield
        elapsed = time.monotonic() - started
        # a resumed demo skips finished steps, so the longest time is kept
        self.seconds[name] = max(elapsed, self.seconds.get(name, 0.0))
        self.path.write_text(json.dumps(self.seconds, indent=2) + "\n")

    def total(self) -> float:
        return sum(self.seconds.values())


def build_corpus(out: Path, corpus: Path) -> None:
    """Serve some drawings on loopback, and run the demo recipe with their list as a source."""
    from stylear.curate.fetch.loopback import serve
    from stylear.curate.recipe import load_recipe
    from stylear.curate.run import run as run_recipe

    folder = out / "server"
    with serve(write_served_folder(folder), PORT) as url:
        listing = write_url_list(folder, url)
        recipe = load_recipe(find_manifest("demo"), {"raw.1": make_url_source(listing)})
        run_recipe(recipe, corpus)


def make_url_source(listing: Path) -> dict[str, Any]:
    """The recipe's second source: the list of URLs that the demo serves on loopback."""
    return {
        "type": "urls",
        "path": str(listing.resolve()),
        "allow_networks": ["127.0.0.0/8"],  # loopback is refused unless it is named
        "host_requests_per_s": None,  # the demo's own server needs no limit
    }


def write_served_folder(folder: Path) -> Path:
    """Write some held-out drawings of the embedded shards as files; returns the folder."""
    from stylear.mini.drawings import drawings

    folder.mkdir(parents=True, exist_ok=True)
    from PIL import Image

    held_out = drawings("val")
    for number in range(SERVED):
        stream = io.BytesIO()
        Image.fromarray(held_out.pixels[number]).save(stream, "PNG")
        (folder / f"{number:02d}.png").write_bytes(stream.getvalue())
    captions = dict(enumerate(held_out.captions[:SERVED]))
    (folder / "captions.json").write_text(json.dumps(captions))
    return folder


def write_url_list(folder: Path, url: str) -> Path:
    """Write the URLs of the served drawings and three that fail; returns the CSV file."""
    captions = json.loads((folder / "captions.json").read_text())
    rows = [(f"{url}/{int(n):02d}.png", caption) for n, caption in captions.items()]
    rows += [
        (f"{url}/missing.png", "a missing image"),
        (f"{url}/captions.json", "a file that is not an image"),
        ("http://169.254.169.254/latest/meta-data", "an address that the fetcher must refuse"),
    ]
    path = folder / "urls.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "caption"])
        writer.writerows(rows)
    return path


def audit_corpus(corpus: Path) -> None:
    """Verify the finished corpus against its manifest."""
    from stylear.curate.run import require_audit

    require_audit(corpus)
    say("all files, keys, counts and splits match the manifest")


def train_model(kind: str, out: Path) -> Path:
    """Run SFT from mini-stylear on the new corpus, sample preference pairs, or run DPO on them."""
    from stylear.train.settings import DpoSettings, PairsSettings, SftSettings, load_settings

    config = find_manifest(f"train-demo-{kind}")
    shared = {"corpus": [out / "corpus"], "encoded": out / "encoded", "out": out / kind}
    if kind == "sft":
        from stylear.train import sft_trainer as sft

        return Path(sft.run(load_settings(SftSettings, config, shared)))
    after_sft = {**shared, "model": str(out / "sft")}
    if kind == "pairs":
        from stylear.train import pairs

        return pairs.run(load_settings(PairsSettings, config, after_sft))
    from stylear.train import dpo_trainer as dpo

    flags = {**after_sft, "pairs": [out / "pairs"]}
    return Path(dpo.run(load_settings(DpoSettings, config, flags)))


def evaluate_models(models: dict[str, str]) -> Evaluation:
    """Evaluate every model on references of house and unseen styles x prompts x seeds."""
    from stylear.encoders.clip import ClipEncoder
    from stylear.evaluation.evaluate import evaluate
    from stylear.model.open import open_model
    from stylear.sampling.references import load_styles

    references = [load_styles(name)[0] for name in [*HOUSE, *UNSEEN]]
    opened = []
    for name, path in models.items():
        model = open_model(path)
        model.name = name
        opened.append(model)
    total = len(opened) * len(references) * len(PROMPTS) * len(SEEDS)
    with Bar("evaluate", total=total, unit="images") as bar:
        return evaluate(
            opened,
            references,
            PROMPTS,
            SEEDS,
            clip=ClipEncoder.open("mini-clip"),
            on_batch=bar.advance,
            **STYLED_SAMPLING,
        )
