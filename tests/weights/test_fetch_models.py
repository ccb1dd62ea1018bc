"""Models are fetched whole or not at all: resumed, bounded, hashed, from nowhere they should not be."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.fake_hub import COMMIT, FakeHub, fake_hub, git_id
from safetensors.torch import save

from stylear.encoders.clip import ClipEncoder
from stylear.errors import StorageError, UsageError, WeightsError
from stylear.weights import download, fetch, hub, names, registry
from stylear.weights import files as weights
from stylear.weights import http as web
from stylear.weights import store as fetched
from stylear.weights.download import Remote
from stylear.weights.registry import File, Model

CHILD = Path(__file__).parents[1] / "builders" / "fetch_child.py"
CONFIG = b'{"size": 1}\n'
TENSORS = save({"w": torch.arange(250_000, dtype=torch.float32)})  # 1 MB
W = "w.safetensors"
W_PATH, CONFIG_PATH = f"org/repo/{W}", "org/repo/config.json"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models directory, an empty registry, no pauses, no token."""
    monkeypatch.setenv("STYLEAR_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(registry, "MODELS", {})
    monkeypatch.setattr(web, "pause", lambda seconds: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "models"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one repository: weights that it keeps apart, a config in git."""
    with fake_hub() as hub_:
        hub_.files = {W_PATH: TENSORS, CONFIG_PATH: CONFIG, "org/repo/README.md": b"# no"}
        hub_.small = {CONFIG_PATH, "org/repo/README.md"}
        monkeypatch.setenv("HF_ENDPOINT", hub_.url)
        yield hub_


def on_hub(name: str = "tiny", *files: str, **more: Any) -> Model:
    chosen = tuple(File(f) for f in files or (W, "config.json"))
    facts: dict[str, Any] = {"about": 1_000_000, "revision": "main"} | more
    return Model(name, "a tiny model", "org/repo", chosen, "MIT", "tests", **facts)


def plain(site: FakeHub, data: bytes, name: str = "w.pth", **known: Any) -> Model:
    """A model of one file at a plain URL."""
    site.files[f"plain/{name}"] = data
    known = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} | known
    file = File(name, "", known["bytes"], known["sha256"])
    return Model("flat", "a flat model", f"{site.url}/plain", (file,), "MIT", "tests", main=name)


def left(place: Path) -> list[str]:
    """Every file below the models directory, lock holders aside."""
    return sorted(
        path.relative_to(place).as_posix()
        for path in place.rglob("*")
        if path.is_file() and not path.name.endswith(".held")
    )


def checkpoint(path: Path, value: object) -> bytes:
    torch.save(value, path)
    return path.read_bytes()


# --- what a fetch leaves behind


def test_a_fetch_writes_the_files_and_a_lock_that_is_always_the_same(
    place: Path, site: FakeHub
) -> None:
    done = fetch.fetch(on_hub())
    assert (done.to_fetch, done.listing.revision) == (len(TENSORS) + len(CONFIG), COMMIT)
    assert left(place) == ["tiny/config.json", "tiny/w.safetensors", "weights.lock"]
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
    assert fetched.verify() == 2
    # again: nothing is transferred, nothing changes
    assert fetch.fetch(on_hub()).to_fetch == 0
    assert (place / "weights.lock").read_bytes() == lock
    assert len(site.asked(W_PATH)) == 1


def test_a_fetch_takes_only_what_is_named_and_under_the_name_that_is_wanted(
    place: Path, site: FakeHub
) -> None:
    site.files["org/repo/unet/m.fp16.safetensors"] = save({"h": torch.zeros(1)})
    site.files["org/repo/unet/m.safetensors"] = b"never asked for"
    model = on_hub("tiny", "absent.bin|w.*", "*.json")
    half = File("unet/*.fp16.safetensors", "unet/m.safetensors")
    model = Model(**(asdict(model) | {"files": (*model.files, half)}))
    fetch.fetch(model)
    names = ["tiny/config.json", "tiny/unet/m.safetensors", "tiny/w.safetensors", "weights.lock"]
    assert left(place) == names
    assert site.asked("org/repo/unet/m.safetensors") == []
    site.files["org/repo/unet/n.fp16.safetensors"] = b"a second that would fit"
    with pytest.raises(WeightsError, match=r"expected unet/\*\.fp16.*, found more than one"):
        fetch.plan(model)


def test_a_dry_run_says_what_would_come_and_writes_nothing(place: Path, site: FakeHub) -> None:
    assert fetch.plan(on_hub()).to_fetch == len(TENSORS) + len(CONFIG)
    assert not place.exists()
    assert [path for path, _, _ in site.seen] == ["api/models/org/repo/revision/main"]


def test_a_damaged_file_is_fetched_anew_and_the_others_are_kept(place: Path, site: FakeHub) -> None:
    fetch.fetch(on_hub())
    damaged = bytearray(TENSORS)
    damaged[5000] ^= 1
    (place / "tiny" / W).write_bytes(damaged)
    with pytest.raises(WeightsError, match="expected sha256"):
        fetched.verify()
    assert fetch.fetch(on_hub()).to_fetch == len(TENSORS)
    assert fetched.verify() == 2
    assert site.asked(CONFIG_PATH) == [None]


def test_a_file_of_another_model_is_not_transferred_twice(place: Path, site: FakeHub) -> None:
    fetch.fetch(on_hub("tiny"))
    fetch.fetch(on_hub("other"))
    assert site.asked(W_PATH) == [None]
    assert (place / "other" / W).read_bytes() == TENSORS
    assert fetched.verify() == 4


def test_a_file_put_there_by_hand_is_checked_and_kept(place: Path, site: FakeHub) -> None:
    model = plain(site, b"{}", "c.json")
    (place / "flat").mkdir(parents=True)
    (place / "flat" / "c.json").write_bytes(b"{}")
    fetch.fetch(model)
    assert site.seen == []
    assert fetched.verify() == 1


def test_a_model_without_an_address_is_taken_from_its_place(place: Path, tmp_path: Path) -> None:
    model = Model("hand", "got by hand", "", (File("v.ckpt"),), "X", "t", about=1000, main="v.ckpt",
                  terms="https://example.org/ask")  # fmt: skip
    with pytest.raises(WeightsError, match="has no public address, found nothing") as caught:
        fetch.fetch(model)
    assert "ask for v.ckpt at https://example.org/ask" in (caught.value.hint or "")
    (place / "hand").mkdir()
    checkpoint(place / "hand" / "v.ckpt", {"w": torch.zeros(3)})
    fetch.fetch(model)
    assert fetched.verify() == 1
    assert fetched.path_of(model) == place / "hand" / "v.ckpt"
    (place / "hand" / "v.ckpt").write_bytes(b"other")
    with pytest.raises(
        WeightsError, match=r"v\.ckpt: expected sha256 .* as in weights\.lock, found"
    ):
        fetch.fetch(model)


def test_a_fetched_clip_is_opened_by_its_registered_name(place: Path, site: FakeHub) -> None:
    source = names.MINI_MODELS / "mini-clip"
    for path in source.iterdir():
        site.files[f"org/repo/{path.name}"] = path.read_bytes()
    wanted = ("open_clip_config.json", "tokenizer*.json", "none.bin|open_clip_model.safetensors")
    registry.MODELS["clip-tiny"] = on_hub("clip-tiny", *wanted, about=10_000_000)
    with pytest.raises(WeightsError, match="clip-tiny: expected a tiny model in") as caught:
        ClipEncoder.open("clip-tiny")
    assert caught.value.hint == "fetch it: stylear models fetch clip-tiny"
    fetch.fetch(registry.get("clip-tiny"))
    shipped, opened = ClipEncoder.open("mini-clip"), ClipEncoder.open("clip-tiny")
    assert opened.name == "clip-tiny"
    assert opened.weights_sha256 == shipped.weights_sha256
    assert torch.equal(opened.embed_texts(["a cat"]), shipped.embed_texts(["a cat"]))


# --- interrupted


def test_a_cut_off_transfer_goes_on_where_it_ended(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = ["cut 300000", "503", "cut 200000"]
    fetch.fetch(on_hub())
    assert site.asked(W_PATH) == [None, "bytes=300000-", "bytes=300000-", "bytes=500000-"]
    assert site.sent[W_PATH] == len(TENSORS)
    assert (place / "tiny" / W).read_bytes() == TENSORS


def test_a_server_without_ranges_is_asked_for_all_of_it_again(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = ["cut 300000", "whole"]
    fetch.fetch(on_hub())
    assert site.sent[W_PATH] == 300_000 + len(TENSORS)
    assert (place / "tiny" / W).read_bytes() == TENSORS


def test_after_five_failures_in_a_row_what_arrived_is_kept(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = ["cut 300000", "503", "500", "429 1", "502"]
    with pytest.raises(WeightsError, match=r"the server said 502 .*\(5 times in a row\)") as caught:
        fetch.fetch(on_hub())
    assert "what has arrived is kept" in (caught.value.hint or "")
    assert "weights.lock" not in left(place)
    assert fetched.fetch_state(on_hub(), {}) == "partial"
    assert fetch.fetch(on_hub()).to_fetch == len(TENSORS) - 300_000
    assert site.sent[W_PATH] == len(TENSORS)


def test_a_pause_is_as_long_as_the_server_asks_for_up_to_a_minute(
    place: Path, site: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = plain(site, TENSORS, W)
    site.faults[f"plain/{W}"] = ["503", "429 7", "503 9999", "cut 10"]
    pauses: list[float] = []
    monkeypatch.setattr(web, "pause", pauses.append)
    fetch.fetch(model)
    assert pauses == [1.0, 7.0, 60.0, 1.0]


def test_a_damaged_part_is_thrown_away_and_the_rest_asked_for_once_more(
    place: Path, site: FakeHub
) -> None:
    remote = hub.listing(on_hub()).files[W]
    target = place / "tiny" / W
    target.parent.mkdir(parents=True)
    download.part_of(remote, target).write_bytes(b"\0" * 1000)
    counted: list[int] = []
    sha256 = download.download(remote, target, accept=lambda path: None, on_bytes=counted.append)
    assert sha256 == hashlib.sha256(TENSORS).hexdigest()
    assert site.asked(W_PATH) == ["bytes=1000-", None]
    assert sum(counted) == len(TENSORS) - 1000
    assert left(place) == ["tiny/w.safetensors"]


def test_a_part_of_another_version_is_not_gone_on_with(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = ["cut 300000", *["500"] * 4]
    with pytest.raises(WeightsError):
        fetch.fetch(on_hub())
    site.files[W_PATH] = save({"w": torch.ones(250_000)})
    fetch.fetch(on_hub())
    assert site.asked(W_PATH)[-1] is None
    assert left(place) == ["tiny/config.json", "tiny/w.safetensors", "weights.lock"]


def child(site: FakeHub, place: Path, model: Model, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"STYLEAR_MODELS": str(place), "HF_ENDPOINT": site.url}
    return subprocess.Popen(
        [sys.executable, str(CHILD), json.dumps([asdict(model)]), *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


def test_a_killed_fetch_transfers_only_the_rest(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = ["stall 600000"]
    process = child(site, place, on_hub(), "models", "fetch", "tiny")
    part = download.part_of(hub.listing(on_hub()).files[W], place / "tiny" / W)
    try:
        wait_for(lambda: part.is_file() and part.stat().st_size == 600_000)
    finally:
        process.kill()
        process.communicate()
    assert left(place) == [f"tiny/{part.name}", "tiny/config.json"]
    site.sent.clear()
    site.seen.clear()
    again = child(site, place, on_hub(), "models", "fetch", "tiny", "--json")
    out, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert json.loads(out)[0]["fetched"] == len(TENSORS) - 600_000
    assert site.asked(W_PATH) == ["bytes=600000-"]
    assert site.sent[W_PATH] == len(TENSORS) - 600_000
    assert CONFIG_PATH not in site.sent
    assert fetched.verify() == 2


def test_two_fetches_at_once_transfer_once_and_corrupt_nothing(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = ["stall 600000"]
    first = child(site, place, on_hub(), "models", "fetch", "tiny", "--json")
    wait_for(lambda: site.sent.get(W_PATH) == 600_000 or first.poll() is not None)
    second = child(site, place, on_hub(), "models", "fetch", "tiny", "--json")
    assert second.stderr is not None
    waiting = second.stderr.readline()
    site.go_on.set()
    results = [process.communicate(timeout=120) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], results
    assert waiting == "tiny: waiting for another process\n"
    transferred = [json.loads(out)[0]["fetched"] for out, _ in results]
    assert transferred == [len(TENSORS) + len(CONFIG), 0]
    assert site.sent[W_PATH] == len(TENSORS)
    assert fetched.verify() == 2


# --- what is refused


def test_another_file_than_recorded_is_refused_until_it_is_asked_for(
    place: Path, site: FakeHub
) -> None:
    fetch.fetch(on_hub())
    site.files[W_PATH] = save({"w": torch.ones(2)})
    before = left(place)
    with pytest.raises(
        WeightsError, match=r"tiny: w\.safetensors: expected .* as in weights\.lock"
    ) as caught:
        fetch.fetch(on_hub())
    assert caught.value.hint == "stylear models fetch tiny --update takes what is there now"
    assert (left(place), fetched.verify()) == (before, 2)
    fetch.fetch(on_hub(), update=True)
    assert (place / "tiny" / W).read_bytes() == site.files[W_PATH]
    assert fetched.verify() == 2


def test_a_model_is_held_to_the_commit_that_was_found_first(
    place: Path, site: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch.fetch(on_hub())
    site.commit = "f" * 40
    with pytest.raises(WeightsError, match="the server said 404"):
        fetch.fetch(on_hub())  # asked for the old commit, which this hub has no more
    assert site.seen[-1][0].endswith(f"/revision/{COMMIT}")
    assert fetch.fetch(on_hub(), update=True).listing.revision == "f" * 40
    capsys.readouterr()
    fetch.fetch(on_hub(revision="e" * 40))  # a toolkit that pins another one
    said = capsys.readouterr().err
    assert said.startswith(
        "tiny: kept at ffffffffffff as in weights.lock; --update takes the newer"
    )


def test_a_wrong_hash_leaves_nothing(place: Path, site: FakeHub) -> None:
    other = TENSORS[:-1] + b"\x7f"
    model = plain(site, other, W, sha256=hashlib.sha256(TENSORS).hexdigest())
    with pytest.raises(WeightsError, match=r"expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"):
        fetch.fetch(model)
    assert left(place) == []
    site.small.add(W_PATH)
    site.stated[W_PATH] = {"blobId": git_id(b"other")}
    with pytest.raises(WeightsError, match="expected git id"):
        fetch.fetch(on_hub())
    assert left(place) == ["tiny/config.json"]


def test_a_hub_that_states_another_hash_or_size_than_is_registered_is_refused(
    place: Path, site: FakeHub
) -> None:
    for file in (File(W, "", 0, "0" * 64), File(W, "", 17)):
        model = Model(**(asdict(on_hub()) | {"files": (file,)}))
        with pytest.raises(
            WeightsError, match=r"w\.safetensors: (sha256|bytes) expected .* at the hub"
        ):
            fetch.fetch(model)
    assert W_PATH not in site.sent


def test_a_longer_body_than_stated_is_not_read_on(place: Path, site: FakeHub) -> None:
    size = len(TENSORS)
    site.faults[W_PATH] = ["more", "endless"]
    with pytest.raises(WeightsError, match=f"expected {size} bytes, found {size + 1} announced"):
        fetch.fetch(on_hub())
    with pytest.raises(WeightsError, match=f"expected {size} bytes, found more"):
        fetch.fetch(on_hub())
    assert W not in [Path(name).name for name in left(place)]
    fetch.fetch(on_hub())
    assert fetched.verify() == 2


def test_a_model_of_more_than_twice_its_size_is_not_begun(place: Path, site: FakeHub) -> None:
    with pytest.raises(WeightsError, match="tiny: expected ~400 kB, found 1 MB at org/repo"):
        fetch.fetch(on_hub(about=400_000))
    assert W_PATH not in site.sent


def test_a_full_disk_is_said_beforehand(
    place: Path, site: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(StorageError, match="expected 1 MB of space for tiny, found 5 bytes"):
        fetch.fetch(on_hub())


class Usage:
    free = 5


@pytest.mark.parametrize("name", ["../x.json", "/x.json", "a/../../x.json", "a\\..\\x.json",
                                  ".ssh/x.json", "a//x.json", "c:x.json", "x\0.json"])  # fmt: skip
def test_names_that_leave_the_directory_are_refused(place: Path, site: FakeHub, name: str) -> None:
    site.files = {f"org/repo/{name}": b"{}", W_PATH: TENSORS}
    depth = name.count("/")
    with pytest.raises(WeightsError, match="org/repo: expected plain file names, found"):
        fetch.fetch(on_hub("tiny", "/".join(["*"] * (depth + 1))))
    assert left(place) == []


def test_only_weights_and_texts_are_taken(place: Path, site: FakeHub) -> None:
    site.files["org/repo/run.py"] = b"print()"
    with pytest.raises(
        WeightsError, match=r"expected weights or their configuration, found 'run\.py'"
    ):
        fetch.fetch(on_hub("tiny", "*.py"))


def test_a_torch_file_with_more_than_tensors_is_refused(
    place: Path, site: FakeHub, tmp_path: Path
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    site.files["org/repo/e.bin"] = checkpoint(tmp_path / "e", {"w": torch.zeros(1), "x": Evil()})
    with pytest.raises(
        WeightsError, match=r"tiny: e\.bin: expected tensors alone, found .*pathlib.Path"
    ):
        fetch.fetch(on_hub("tiny", "e.bin"))
    assert left(place) == []
    assert not (tmp_path / "owned").exists()
    # the same file is taken where the registry has its very hash
    assert fetch.fetch(plain(site, site.files["org/repo/e.bin"], "e.bin")).to_fetch > 0
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin", "w.ckpt"])
def test_what_is_no_weights_file_is_refused(place: Path, site: FakeHub, name: str) -> None:
    site.files[f"org/repo/{name}"] = b"<html>please log in</html>"
    with pytest.raises(
        WeightsError, match=r"expected \.\w+ weights, found a file that cannot be read"
    ):
        fetch.fetch(on_hub("tiny", name))
    assert left(place) == []


def test_torch_files_old_and_new_are_taken(place: Path, site: FakeHub, tmp_path: Path) -> None:
    site.files["org/repo/new.pth"] = checkpoint(tmp_path / "new", {"w": torch.ones(2)})
    torch.save({"w": torch.ones(3)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    site.files["org/repo/old.bin"] = (tmp_path / "old").read_bytes()
    fetch.fetch(on_hub("tiny", "new.pth", "old.bin"))
    assert weights.read_tensors(place / "tiny" / "old.bin")["w"].tolist() == [1.0, 1.0, 1.0]


# --- whom is asked, and what is said


@pytest.mark.parametrize("status", ["401", "403"])
def test_a_refusal_names_the_terms_and_the_token(place: Path, site: FakeHub, status: str) -> None:
    site.faults["api/models/org/repo/revision/main"] = [status]
    with pytest.raises(WeightsError, match=f"the server said {status}") as caught:
        fetch.fetch(on_hub(terms="https://example.org/terms"))
    assert (caught.value.hint or "").startswith(
        "accept the licence at https://example.org/terms, then set HF_TOKEN"
    )
    site.faults[W_PATH] = [status]
    with pytest.raises(WeightsError, match=f"{W}: the server said {status}"):
        fetch.fetch(on_hub())


def test_what_is_gone_is_not_asked_for_again(place: Path, site: FakeHub) -> None:
    with pytest.raises(WeightsError, match="the server said 404") as caught:
        fetch.fetch(on_hub(revision="a" * 40))
    assert "no longer there" in (caught.value.hint or "")
    assert len(site.seen) == 1
    with pytest.raises(WeightsError, match=r"expected absent\.bin in org/repo at 0123456789ab"):
        fetch.fetch(on_hub("tiny", "absent.bin"))


def test_a_hub_that_is_down_is_asked_five_times(place: Path, site: FakeHub) -> None:
    path = "api/models/org/repo/revision/main"
    site.faults[path] = ["500"] * 5
    with pytest.raises(WeightsError, match=r"the server said 500 .*\(5 times in a row\)"):
        fetch.fetch(on_hub())
    assert len(site.asked(path)) == 5
    site.faults[path] = ["500"] * 4
    fetch.fetch(on_hub())


def test_the_token_goes_to_the_endpoint_and_nowhere_else(
    place: Path, site: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with fake_hub() as other:
        other.files["else/w"] = TENSORS
        site.faults[W_PATH] = [f"to {other.url}/else/w"]
        monkeypatch.setattr(web, "_request", both_allowed(web._request, other.url))
        fetch.fetch(on_hub())
        assert {token for _, _, token in site.seen} == {"Bearer hf_secret"}
        assert other.seen == [("else/w", None, None)]


def both_allowed(request: Any, url: str) -> Any:
    """A second address that http may go to, so that a redirect there can be looked at."""

    def made(target: str, first: int) -> Any:
        if not target.startswith(url):
            return request(target, first)
        found = request(target.replace("http://", "https://"), first)
        found.full_url = target
        return found

    return made


def test_a_redirect_on_the_endpoint_keeps_range_and_token(
    place: Path, site: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "t")
    site.files["moved/w"] = TENSORS
    site.faults[W_PATH] = ["cut 300000", f"to {site.url}/moved/w"]
    fetch.fetch(on_hub())
    assert ("moved/w", "bytes=300000-", "Bearer t") in site.seen


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("http://other.example/w", "http://other.example/w: expected an https URL"),
        ("file:///etc/passwd", "file:///etc/passwd: expected an https URL"),
        ("ftp://127.0.0.1/w", "ftp://127.0.0.1/w: expected an https URL"),
    ],
)
def test_a_redirect_may_only_lead_to_https(
    place: Path, site: FakeHub, target: str, said: str
) -> None:
    site.faults[W_PATH] = [f"to {target}"]
    with pytest.raises(WeightsError, match=said):
        fetch.fetch(on_hub())
    assert W not in [Path(name).name for name in left(place)]


def test_a_redirect_may_not_lead_from_the_public_into_a_private_network(
    place: Path, site: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = web._is_public
    monkeypatch.setattr(web, "_is_public", lambda host: host == "127.0.0.1" or public(host))
    for host in ("10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:192.168.0.1]"):
        site.faults[W_PATH] = [f"to https://{host}/w"]
        with pytest.raises(WeightsError, match=r"redirects to .*, which is not a public host"):
            fetch.fetch(on_hub())


@pytest.mark.parametrize("target", ["https://[bad/w", "https://host:99999/w"])
def test_a_redirect_to_no_url_is_a_sentence(place: Path, site: FakeHub, target: str) -> None:
    site.faults[W_PATH] = [f"to {target}"]
    with pytest.raises(WeightsError, match="expected a redirect to a URL, found"):
        fetch.fetch(on_hub())


def test_redirects_without_end_are_left(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = [f"to {site.url}/{W_PATH}"] * 9
    with pytest.raises(WeightsError, match="found more than 5 redirects"):
        fetch.fetch(on_hub())
    assert len(site.asked(W_PATH)) == 6


def test_http_is_for_the_endpoint_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_hub() as other:
        model = plain(other, b"{}", "c.json")
        monkeypatch.delenv("HF_ENDPOINT", raising=False)
        with pytest.raises(WeightsError, match="expected an https URL") as caught:
            fetch.fetch(model)
        assert "HF_ENDPOINT" in (caught.value.hint or "")
        assert other.seen == []
    monkeypatch.setenv("HF_ENDPOINT", "ftp://hub")
    with pytest.raises(UsageError, match="HF_ENDPOINT: expected an http or https URL"):
        fetch.fetch(on_hub())


def test_a_name_that_does_not_resolve_is_said_at_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://no-such-host.invalid")
    with pytest.raises(WeightsError, match="cannot be reached") as caught:
        fetch.fetch(on_hub())
    assert "offline" in (caught.value.hint or "")


@pytest.mark.parametrize("said", [b"[]", b"<html>", b"[" * 100_000, b'{"sha": "main"}', b"{}"])
def test_an_answer_that_no_hub_gives_is_a_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(web, "open_url", lambda url, **more: Answer(said))
    with pytest.raises(WeightsError, match=r"expected a (JSON object|commit id)"):
        fetch.fetch(on_hub())


def test_another_commit_than_asked_for_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = json.dumps({"sha": "f" * 40, "siblings": []}).encode()
    monkeypatch.setattr(web, "open_url", lambda url, **more: Answer(said))
    with pytest.raises(WeightsError, match=f"expected commit {'a' * 40}, found {'f' * 40}"):
        fetch.fetch(on_hub(revision="a" * 40))


class Answer:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def read(self, at_most: int) -> bytes:
        return self.data[:at_most]


def test_the_command_shows_what_it_does(place: Path, site: FakeHub) -> None:
    def run(*words: str) -> tuple[Sequence[str], str]:
        process = child(site, place, on_hub(), *words)
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return out.splitlines(), said

    out, _ = run("models", "fetch", "--dry-run", "tiny")
    assert out[1].split("  ")[:1] == ["tiny"]
    assert "1 MB" in out[1]
    out, said = run("models", "fetch", "tiny")
    assert said.startswith("tiny: 1 MB from org/repo (licence: MIT)\nfetch tiny: 1001/1001 kB, ")
    assert out[0].split() == ["name", "files", "bytes", "fetched", "revision", "licence", "path"]
    assert str(place / "tiny") in out[1]
    _, said = run("models", "fetch", "tiny")
    assert said == "tiny: all 1 MB are there\n"
    out, _ = run("models", "verify")
    assert out == ["19 shipped and 2 fetched files as recorded"]


def test_remote_is_known_by_either_hash() -> None:
    assert Remote("u", 1, "a").known
    assert Remote("u", 1, git_sha1="a").known
    assert not Remote("u", 1).known
