"""Models are fetched whole or not at all: bounded, hashed, tensors alone."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from builders.fake_hub import COMMIT, FakeHub, git_id
from builders.fetched_models import (
    TENSORS,
    W_PATH,
    W,
    hub_model,
    list_files,
    torch_bytes,
    url_model,
)
from safetensors.torch import save

from stylear.errors import StorageError, WeightsError
from stylear.weights import fetch
from stylear.weights import files as weights
from stylear.weights import store as fetched
from stylear.weights.registry import File, Model


def test_another_file_than_recorded_is_refused_until_it_is_asked_for(
    place: Path, site: FakeHub
) -> None:
    fetch.fetch_model(hub_model())
    site.files[W_PATH] = save({"w": torch.ones(2)})
    before = list_files(place)
    with pytest.raises(
        WeightsError, match=r"tiny: w\.safetensors: expected .* recorded in weights\.lock"
    ) as caught:
        fetch.fetch_model(hub_model())
    assert caught.value.hint == "stylear models fetch tiny --update accepts the current file"
    assert (list_files(place), fetched.verify_fetched()) == (before, 2)
    fetch.fetch_model(hub_model(), update=True)
    assert (place / "tiny" / W).read_bytes() == site.files[W_PATH]
    assert fetched.verify_fetched() == 2


def test_a_model_is_held_to_the_commit_that_was_found_first(
    place: Path, site: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch.fetch_model(hub_model())
    site.commit = "f" * 40
    with pytest.raises(WeightsError, match="the server responded 404"):
        fetch.fetch_model(hub_model())  # asked for the old commit, which this hub has no more
    assert site.seen[-1][0].endswith(f"/revision/{COMMIT}")
    assert fetch.fetch_model(hub_model(), update=True).listing.revision == "f" * 40
    capsys.readouterr()
    fetch.fetch_model(hub_model(revision="e" * 40))  # a toolkit that pins another one
    stderr = capsys.readouterr().err
    assert stderr.startswith(
        "tiny: pinned to ffffffffffff by weights.lock; --update fetches the newer one"
    )


def test_a_wrong_hash_leaves_nothing(place: Path, site: FakeHub) -> None:
    other = TENSORS[:-1] + b"\x7f"
    model = url_model(site, other, W, sha256=hashlib.sha256(TENSORS).hexdigest())
    with pytest.raises(WeightsError, match=r"expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"):
        fetch.fetch_model(model)
    assert list_files(place) == []
    site.small.add(W_PATH)
    site.stated[W_PATH] = {"blobId": git_id(b"other")}
    with pytest.raises(WeightsError, match="expected git id"):
        fetch.fetch_model(hub_model())
    assert list_files(place) == ["tiny/config.json"]


def test_a_hub_that_states_another_hash_or_size_than_is_registered_is_refused(
    place: Path, site: FakeHub
) -> None:
    for file in (File(W, "", 0, "0" * 64), File(W, "", 17)):
        model = Model(**(asdict(hub_model()) | {"files": (file,)}))
        with pytest.raises(
            WeightsError, match=r"w\.safetensors: (sha256|bytes) expected .* at the hub"
        ):
            fetch.fetch_model(model)
    assert W_PATH not in site.sent


def test_a_longer_body_than_stated_is_not_read_on(place: Path, site: FakeHub) -> None:
    size = len(TENSORS)
    site.faults[W_PATH] = ["more", "endless"]
    with pytest.raises(WeightsError, match=f"expected {size} bytes, found {size + 1} announced"):
        fetch.fetch_model(hub_model())
    with pytest.raises(WeightsError, match=f"expected {size} bytes, found more"):
        fetch.fetch_model(hub_model())
    assert W not in [Path(name).name for name in list_files(place)]
    fetch.fetch_model(hub_model())
    assert fetched.verify_fetched() == 2


def test_a_model_of_more_than_twice_its_size_is_not_begun(place: Path, site: FakeHub) -> None:
    with pytest.raises(WeightsError, match="tiny: expected ~400 kB, found 1 MB at org/repo"):
        fetch.fetch_model(hub_model(about_bytes=400_000))
    assert W_PATH not in site.sent


def test_a_full_disk_is_said_beforehand(
    place: Path, site: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(StorageError, match="expected 1 MB of space for tiny, found 5 bytes"):
        fetch.fetch_model(hub_model())


class Usage:
    free = 5


@pytest.mark.parametrize("name", ["../x.json", "/x.json", "a/../../x.json", "a\\..\\x.json",
                                  ".ssh/x.json", "a//x.json", "c:x.json", "x\0.json"])  # fmt: skip
def test_names_that_leave_the_directory_are_refused(place: Path, site: FakeHub, name: str) -> None:
    site.files = {f"org/repo/{name}": b"{}", W_PATH: TENSORS}
    depth = name.count("/")
    with pytest.raises(WeightsError, match="org/repo: expected plain file names, found"):
        fetch.fetch_model(hub_model("tiny", "/".join(["*"] * (depth + 1))))
    assert list_files(place) == []


def test_only_weights_and_texts_are_taken(place: Path, site: FakeHub) -> None:
    site.files["org/repo/run.py"] = b"print()"
    with pytest.raises(
        WeightsError, match=r"expected weights or configuration files, found 'run\.py'"
    ):
        fetch.fetch_model(hub_model("tiny", "*.py"))


def test_a_torch_file_with_more_than_tensors_is_refused(
    place: Path, site: FakeHub, tmp_path: Path
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    site.files["org/repo/e.bin"] = torch_bytes(tmp_path / "e", {"w": torch.zeros(1), "x": Evil()})
    with pytest.raises(
        WeightsError, match=r"tiny: e\.bin: expected tensors only, found .*pathlib.Path"
    ):
        fetch.fetch_model(hub_model("tiny", "e.bin"))
    assert list_files(place) == []
    assert not (tmp_path / "owned").exists()
    # the same file is taken where the registry has its very hash
    assert fetch.fetch_model(url_model(site, site.files["org/repo/e.bin"], "e.bin")).to_fetch > 0
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin", "w.ckpt"])
def test_what_is_no_weights_file_is_refused(place: Path, site: FakeHub, name: str) -> None:
    site.files[f"org/repo/{name}"] = b"<html>please log in</html>"
    with pytest.raises(WeightsError, match=r"expected \.\w+ weights, found "):
        fetch.fetch_model(hub_model("tiny", name))
    assert list_files(place) == []


def test_torch_files_old_and_new_are_taken(place: Path, site: FakeHub, tmp_path: Path) -> None:
    site.files["org/repo/new.pth"] = torch_bytes(tmp_path / "new", {"w": torch.ones(2)})
    torch.save({"w": torch.ones(3)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    site.files["org/repo/old.bin"] = (tmp_path / "old").read_bytes()
    fetch.fetch_model(hub_model("tiny", "new.pth", "old.bin"))
    assert weights.read_tensors(place / "tiny" / "old.bin")["w"].tolist() == [1.0, 1.0, 1.0]
