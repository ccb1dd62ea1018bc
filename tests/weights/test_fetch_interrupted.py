"""An interrupted fetch goes on where it ended, and two at once corrupt nothing."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders.fake_hub import FakeHub
from builders.fetched_models import (
    CONFIG,
    CONFIG_PATH,
    TENSORS,
    W_PATH,
    W,
    hub_model,
    list_files,
    start_command,
    url_model,
)
from safetensors.torch import save

from stylear.errors import WeightsError
from stylear.weights import download, fetch, hub
from stylear.weights import http as web
from stylear.weights import store as fetched


def test_a_cut_off_transfer_goes_on_where_it_ended(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = ["cut 300000", "503", "cut 200000"]
    fetch.fetch_model(hub_model())
    assert site.asked(W_PATH) == [None, "bytes=300000-", "bytes=300000-", "bytes=500000-"]
    assert site.sent[W_PATH] == len(TENSORS)
    assert (place / "tiny" / W).read_bytes() == TENSORS


def test_a_server_without_ranges_is_asked_for_all_of_it_again(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = ["cut 300000", "whole"]
    fetch.fetch_model(hub_model())
    assert site.sent[W_PATH] == 300_000 + len(TENSORS)
    assert (place / "tiny" / W).read_bytes() == TENSORS


def test_after_five_failures_in_a_row_what_arrived_is_kept(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = ["cut 300000", "503", "500", "429 1", "502"]
    with pytest.raises(
        WeightsError, match=r"the server responded 502 .*\(5 times in a row\)"
    ) as caught:
        fetch.fetch_model(hub_model())
    assert "received bytes are kept" in (caught.value.hint or "")
    assert "weights.lock" not in list_files(place)
    assert fetched.get_fetch_state(hub_model(), {}) == "partial"
    assert fetch.fetch_model(hub_model()).to_fetch == len(TENSORS) - 300_000
    assert site.sent[W_PATH] == len(TENSORS)


def test_a_pause_is_as_long_as_the_server_asks_for_up_to_a_minute(
    place: Path, site: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = url_model(site, TENSORS, W)
    site.faults[f"plain/{W}"] = ["503", "429 7", "503 9999", "cut 10"]
    pauses: list[float] = []
    monkeypatch.setattr(web, "pause", pauses.append)
    fetch.fetch_model(model)
    assert pauses == [1.0, 7.0, 60.0, 1.0]


def test_a_damaged_part_is_thrown_away_and_the_rest_asked_for_once_more(
    place: Path, site: FakeHub
) -> None:
    remote = hub.list_model_files(hub_model()).files[W]
    target = place / "tiny" / W
    target.parent.mkdir(parents=True)
    download.part_path(remote, target).write_bytes(b"\0" * 1000)
    counted: list[int] = []
    sha256 = download.download(remote, target, accept=lambda path: None, on_bytes=counted.append)
    assert sha256 == hashlib.sha256(TENSORS).hexdigest()
    assert site.asked(W_PATH) == ["bytes=1000-", None]
    assert sum(counted) == len(TENSORS) - 1000
    assert list_files(place) == ["tiny/w.safetensors"]


def test_a_part_of_another_version_is_not_gone_on_with(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = ["cut 300000", *["500"] * 4]
    with pytest.raises(WeightsError):
        fetch.fetch_model(hub_model())
    site.files[W_PATH] = save({"w": torch.ones(250_000)})
    fetch.fetch_model(hub_model())
    assert site.asked(W_PATH)[-1] is None
    assert list_files(place) == ["tiny/config.json", "tiny/w.safetensors", "weights.lock"]


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


def test_a_killed_fetch_transfers_only_the_rest(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = ["stall 600000"]
    process = start_command(site, place, hub_model(), "models", "fetch", "tiny")
    part = download.part_path(hub.list_model_files(hub_model()).files[W], place / "tiny" / W)
    try:
        wait_for(lambda: part.is_file() and part.stat().st_size == 600_000)
    finally:
        process.kill()
        process.communicate()
    assert list_files(place) == [f"tiny/{part.name}", "tiny/config.json"]
    site.sent.clear()
    site.seen.clear()
    again = start_command(site, place, hub_model(), "models", "fetch", "tiny", "--json")
    out, stderr = again.communicate(timeout=120)
    assert again.returncode == 0, stderr
    assert json.loads(out)[0]["fetched"] == len(TENSORS) - 600_000
    assert site.asked(W_PATH) == ["bytes=600000-"]
    assert site.sent[W_PATH] == len(TENSORS) - 600_000
    assert CONFIG_PATH not in site.sent
    assert fetched.verify_fetched() == 2


def test_two_fetches_at_once_transfer_once_and_corrupt_nothing(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = ["stall 600000"]
    first = start_command(site, place, hub_model(), "models", "fetch", "tiny", "--json")
    wait_for(lambda: site.sent.get(W_PATH) == 600_000 or first.poll() is not None)
    second = start_command(site, place, hub_model(), "models", "fetch", "tiny", "--json")
    assert second.stderr is not None
    waiting = second.stderr.readline()
    site.go_on.set()
    results = [process.communicate(timeout=120) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], results
    assert waiting == "tiny: waiting for another process\n"
    transferred = [json.loads(out)[0]["fetched"] for out, _ in results]
    assert transferred == [len(TENSORS) + len(CONFIG), 0]
    assert site.sent[W_PATH] == len(TENSORS)
    assert fetched.verify_fetched() == 2
