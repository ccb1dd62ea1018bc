"""`stylear demo`: the whole story offline, on the mini family, ending with one page to look at.

Like the command line it sits on top of all three packages; nothing imports it. Every step is one that a user
would take, and says the command that takes it. Run again, it goes on where it was stopped.
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

from stylear.console import say
from stylear.embedded import find_manifest
from stylear.mini.references import EVALUATION_SCENES
from stylear.mini.styles import HOUSE_FAMILIES, UNSEEN_FAMILIES

if TYPE_CHECKING:
    from stylear.evaluation.evaluate import Evaluation

PORT = 8917  # fixed: URLs are part of the keys, so another port would be another corpus
STEPS = 6
SERVED = 24  # drawings that are fetched over HTTP
HOUSE = [f"{family}--h{number}" for family in HOUSE_FAMILIES for number in EVALUATION_SCENES]
UNSEEN = [f"{family}--h{number}" for family in UNSEEN_FAMILIES for number in EVALUATION_SCENES]
SAMPLING: dict[str, Any] = {"guidance": 3.0, "top_k": 200, "temperature": 0.9, "noise": 0.1}
PROMPTS = ["a red apple", "a cat face", "a heart", "a sun", "a mushroom", "a house"]
SEEDS = [0, 1]


def run(out: Path) -> Path:
    """Build, audit, train, generate, measure; the path of the page. At most 8 minutes on 2 cores."""
    from stylear.demo.page import write_page

    watch = Watch(out / "minutes.json")
    corpus = out / "corpus"
    with watch.step("corpus", f"stylear curate run demo --out {corpus}"):
        build_corpus(out, corpus)
    with watch.step("audit", f"stylear curate audit {corpus}"):
        audit(corpus)
    sft = out / "sft"
    with watch.step("sft", f"stylear train sft --config train-demo-sft --out {sft}"):
        train("sft", out)
    pairs, dpo = out / "pairs", out / "dpo"
    with watch.step("pairs", f"stylear train pairs --config train-demo-pairs --out {pairs}"):
        train("pairs", out)
    with watch.step("dpo", f"stylear train dpo --config train-demo-dpo --out {dpo}"):
        train("dpo", out)
    models = {
        "base": "mini-ar",
        "shipped": "mini-stylear",
        "after SFT": str(sft / "final"),
        "after DPO": str(dpo / "final"),
    }
    with watch.step("evaluate", "stylear evaluate --model ... --styles ... --prompt ..."):
        evaluation = evaluate(models)
        evaluation.write(out / "evaluation")
    parts = parts_of(evaluation)
    page = write_page(out, evaluation, parts, watch.seconds)
    from stylear.console import emit_table

    for title, part in parts:
        say(f"\n{title}")
        emit_table(part.table())
    say(f"\n{watch.total() / 60:.1f} minutes")
    print(f"page: {page}")
    return page


def parts_of(evaluation: Evaluation) -> list[tuple[str, Evaluation]]:
    """The evaluation on the house styles, and on styles that nothing was trained on."""
    return [
        ("House styles, references that are not in the corpus", evaluation.subset(HOUSE)),
        ("Styles that nothing was trained on", evaluation.subset(UNSEEN)),
    ]


class Watch:
    """Announces steps and keeps the seconds that each took, over restarts too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        self.number = 0

    @contextmanager
    def step(self, name: str, command: str) -> Iterator[None]:
        """Run the block as step `name`; `command` is what a user would type for it."""
        self.number += 1
        say(f"\n[{self.number}/{STEPS}] {command}")
        started = time.monotonic()
        yield
        took = time.monotonic() - started
        self.seconds[name] = max(took, self.seconds.get(name, 0.0))  # a later run finds it done
        self.path.write_text(json.dumps(self.seconds, indent=2) + "\n")

    def total(self) -> float:
        return sum(self.seconds.values())


def build_corpus(out: Path, corpus: Path) -> None:
    """Serve some drawings on loopback, and run the demo recipe with their list as a source."""
    from stylear.curate.fetch.loopback import serve
    from stylear.curate.recipe import load_recipe
    from stylear.curate.run import run as run_recipe

    folder = out / "server"
    with serve(folder_to_serve(folder), PORT) as url:
        listing = write_list(folder, url)
        recipe = load_recipe(find_manifest("demo"), {"raw.1": url_source(listing)})
        run_recipe(recipe, corpus)


def url_source(listing: Path) -> dict[str, Any]:
    """The recipe's second source: the list of URLs that the demo serves on loopback."""
    return {
        "type": "urls",
        "path": str(listing.resolve()),
        "allow_networks": ["127.0.0.0/8"],  # loopback is refused unless it is named
        "host_requests_per_s": None,  # our own server needs no limit
    }


def folder_to_serve(folder: Path) -> Path:
    """A folder with some held-out drawings as files, made from the embedded shards."""
    from stylear.mini.drawings import drawings

    folder.mkdir(parents=True, exist_ok=True)
    from PIL import Image

    held = drawings("val")
    for number in range(SERVED):
        stream = io.BytesIO()
        Image.fromarray(held.pixels[number]).save(stream, "PNG")
        (folder / f"{number:02d}.png").write_bytes(stream.getvalue())
    captions = dict(enumerate(held.captions[:SERVED]))
    (folder / "captions.json").write_text(json.dumps(captions))
    return folder


def write_list(folder: Path, url: str) -> Path:
    """The URL list of the served drawings, and three that cannot be had."""
    captions = json.loads((folder / "captions.json").read_text())
    rows = [(f"{url}/{int(n):02d}.png", caption) for n, caption in captions.items()]
    rows += [
        (f"{url}/missing.png", "a picture that is not there"),
        (f"{url}/captions.json", "a file that is no picture"),
        ("http://169.254.169.254/latest/meta-data", "an address that a fetcher must refuse"),
    ]
    path = folder / "urls.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "caption"])
        writer.writerows(rows)
    return path


def audit(corpus: Path) -> None:
    """Prove the finished corpus against its manifest."""
    from stylear.curate.run import require_audit

    require_audit(corpus)
    say("every file, key, count and split is as the manifest says")


def train(kind: str, out: Path) -> Path:
    """SFT from mini-stylear on the fresh corpus, pairs of its pictures, or DPO on these."""
    from stylear.train import settings as of

    config = find_manifest(f"train-demo-{kind}")
    shared = {"corpus": [out / "corpus"], "encoded": out / "encoded", "out": out / kind}
    if kind == "sft":
        from stylear.train import sft_trainer as sft

        return Path(sft.run(of.load_settings(of.SftSettings, config, shared)))
    after_sft = {**shared, "model": str(out / "sft")}
    if kind == "pairs":
        from stylear.train import pairs

        return pairs.run(of.load_settings(of.PairsSettings, config, after_sft))
    from stylear.train import dpo_trainer as dpo

    flags = {**after_sft, "pairs": [out / "pairs"]}
    return Path(dpo.run(of.load_settings(of.DpoSettings, config, flags)))


def evaluate(models: dict[str, str]) -> Evaluation:
    """Every model on references of house styles and of unseen styles x prompts x seeds."""
    from stylear.encoders.clip import ClipEncoder
    from stylear.evaluation.evaluate import evaluate as measure
    from stylear.model.open import open_model
    from stylear.sampling.references import load_styles

    references = [load_styles(name)[0] for name in [*HOUSE, *UNSEEN]]
    opened = []
    for name, path in models.items():
        model = open_model(path)
        model.name = name
        opened.append(model)
    return measure(
        opened, references, PROMPTS, SEEDS, clip=ClipEncoder.open("mini-clip"), **SAMPLING
    )
