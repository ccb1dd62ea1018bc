"""A fetch leaves the model's files and a lock, and transfers nothing twice."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from builders.fake_hub import COMMIT, FakeHub
from builders.fetched_models import (
    CONFIG,
    CONFIG_PATH,
    TENSORS,
    W_PATH,
    W,
    hub_model,
    list_files,
    torch_bytes,
    url_model,
)
from safetensors.torch import save

from stylear.encoders.clip import ClipEncoder
from stylear.errors import WeightsError
from stylear.weights import fetch, names, registry
from stylear.weights import store as fetched
from stylear.weights.registry import File, Model


def test_a_fetch_writes_the_files_and_a_lock_that_is_always_the_same(
    place: Path, site: FakeHub
) -> None:
    done = fetch.fetch_model(hub_model())
    assert (done.to_fetch, done.listing.revision) == (len(TENSORS) + len(CONFIG), COMMIT)
    assert list_files(place) == ["tiny/config.json", "tiny/w.safetensors", "weights.lock"]
    assert (place / "tiny" / W).read_bytes() == TENSORS
    lock = (place / "weights.lock").read_bytes()
    sha256 = hashlib.sha256(TENSORS).hexdigest()
    assert json.loads(lock) == {
        "models": {
            "tiny": {
                "source": "org/repo",
                "revision": COMMIT,
                "licence": "MIT",
                "files": {
                    "config.json": {
                        "bytes": len(CONFIG),
                        "sha256": hashlib.sha256(CONFIG).hexdigest(),
                    },
                    W: {"bytes": len(TENSORS), "sha256": sha256},
                },
            }
        }
    }
    assert site.asked(CONFIG_PATH) == [None]
    assert fetched.verify_fetched() == 2
    # again: nothing is transferred, nothing changes
    assert fetch.fetch_model(hub_model()).to_fetch == 0
    assert (place / "weights.lock").read_bytes() == lock
    assert len(site.asked(W_PATH)) == 1


def test_a_fetch_takes_only_what_is_named_and_under_the_name_that_is_wanted(
    place: Path, site: FakeHub
) -> None:
    site.files["org/repo/unet/m.fp16.safetensors"] = save({"h": torch.zeros(1)})
    site.files["org/repo/unet/m.safetensors"] = b"never asked for"
    model = hub_model("tiny", "absent.bin|w.*", "*.json")
    half = File("unet/*.fp16.safetensors", "unet/m.safetensors")
    model = Model(**(asdict(model) | {"files": (*model.files, half)}))
    fetch.fetch_model(model)
    names = ["tiny/config.json", "tiny/unet/m.safetensors", "tiny/w.safetensors", "weights.lock"]
    assert list_files(place) == names
    assert site.asked("org/repo/unet/m.safetensors") == []
    site.files["org/repo/unet/n.fp16.safetensors"] = b"a second that would fit"
    with pytest.raises(WeightsError, match=r"expected unet/\*\.fp16.*, found more than one"):
        fetch.plan_fetch(model)


def test_a_dry_run_says_what_would_come_and_writes_nothing(place: Path, site: FakeHub) -> None:
    assert fetch.plan_fetch(hub_model()).to_fetch == len(TENSORS) + len(CONFIG)
    assert not place.exists()
    assert [path for path, _, _ in site.seen] == ["api/models/org/repo/revision/main"]


def test_a_damaged_file_is_fetched_anew_and_the_others_are_kept(place: Path, site: FakeHub) -> None:
    fetch.fetch_model(hub_model())
    damaged = bytearray(TENSORS)
    damaged[5000] ^= 1
    (place / "tiny" / W).write_bytes(damaged)
    with pytest.raises(WeightsError, match="expected sha256"):
        fetched.verify_fetched()
    assert fetch.fetch_model(hub_model()).to_fetch == len(TENSORS)
    assert fetched.verify_fetched() == 2
    assert site.asked(CONFIG_PATH) == [None]


def test_a_file_of_another_model_is_not_transferred_twice(place: Path, site: FakeHub) -> None:
    fetch.fetch_model(hub_model("tiny"))
    fetch.fetch_model(hub_model("other"))
    assert site.asked(W_PATH) == [None]
    assert (place / "other" / W).read_bytes() == TENSORS
    assert fetched.verify_fetched() == 4


def test_a_file_copied_there_by_hand_is_checked_and_kept(place: Path, site: FakeHub) -> None:
    model = url_model(site, b"{}", "c.json")
    (place / "flat").mkdir(parents=True)
    (place / "flat" / "c.json").write_bytes(b"{}")
    fetch.fetch_model(model)
    assert site.seen == []
    assert fetched.verify_fetched() == 1


def test_a_model_without_an_address_is_taken_from_its_place(place: Path, tmp_path: Path) -> None:
    model = Model("hand", "got by hand", "", (File("v.ckpt"),), "X", "t", about_bytes=1000, main="v.ckpt",
                  terms="https://example.org/ask")  # fmt: skip
    with pytest.raises(WeightsError, match="has no public download, found nothing") as caught:
        fetch.fetch_model(model)
    assert "request v.ckpt at https://example.org/ask" in (caught.value.hint or "")
    (place / "hand").mkdir()
    torch_bytes(place / "hand" / "v.ckpt", {"w": torch.zeros(3)})
    fetch.fetch_model(model)
    assert fetched.verify_fetched() == 1
    assert fetched.find_fetched(model) == place / "hand" / "v.ckpt"
    (place / "hand" / "v.ckpt").write_bytes(b"other")
    with pytest.raises(
        WeightsError, match=r"v\.ckpt: expected sha256 .* recorded in weights\.lock, found"
    ):
        fetch.fetch_model(model)


def test_a_fetched_clip_is_opened_by_its_registered_name(place: Path, site: FakeHub) -> None:
    source = names.MINI_MODELS / "mini-clip"
    for path in source.iterdir():
        site.files[f"org/repo/{path.name}"] = path.read_bytes()
    files = ("open_clip_config.json", "tokenizer*.json", "none.bin|open_clip_model.safetensors")
    registry.MODELS["clip-tiny"] = hub_model("clip-tiny", *files, about_bytes=10_000_000)
    with pytest.raises(WeightsError, match="clip-tiny: expected a tiny model in") as caught:
        ClipEncoder.open("clip-tiny")
    assert caught.value.hint == "fetch it: stylear models fetch clip-tiny"
    fetch.fetch_model(registry.get_model("clip-tiny"))
    shipped, opened = ClipEncoder.open("mini-clip"), ClipEncoder.open("clip-tiny")
    assert opened.name == "clip-tiny"
    assert opened.weights_sha256 == shipped.weights_sha256
    assert torch.equal(opened.embed_texts(["a cat"]), shipped.embed_texts(["a cat"]))
