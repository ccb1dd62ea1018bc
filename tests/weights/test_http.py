"""What may be asked of the network, where a redirect may lead, and what a refusal says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders.fake_hub import FakeHub, fake_hub
from builders.fetched_models import (
    TENSORS,
    W_PATH,
    W,
    hub_model,
    list_files,
    start_command,
    url_model,
)

from stylear.errors import UsageError, WeightsError
from stylear.weights import fetch
from stylear.weights import http as web
from stylear.weights.download import Remote


@pytest.mark.parametrize("status", ["401", "403"])
def test_a_refusal_names_the_terms_and_the_token(place: Path, site: FakeHub, status: str) -> None:
    site.faults["api/models/org/repo/revision/main"] = [status]
    with pytest.raises(WeightsError, match=f"the server responded {status}") as caught:
        fetch.fetch_model(hub_model(terms="https://example.org/terms"))
    assert (caught.value.hint or "").startswith(
        "accept the licence at https://example.org/terms, then set HF_TOKEN"
    )
    site.faults[W_PATH] = [status]
    with pytest.raises(WeightsError, match=f"{W}: the server responded {status}"):
        fetch.fetch_model(hub_model())


def test_what_is_gone_is_not_asked_for_again(place: Path, site: FakeHub) -> None:
    with pytest.raises(WeightsError, match="the server responded 404") as caught:
        fetch.fetch_model(hub_model(revision="a" * 40))
    assert "the source has changed" in (caught.value.hint or "")
    assert len(site.seen) == 1
    with pytest.raises(WeightsError, match=r"expected absent\.bin in org/repo at 0123456789ab"):
        fetch.fetch_model(hub_model("tiny", "absent.bin"))


def test_a_hub_that_is_down_is_asked_five_times(place: Path, site: FakeHub) -> None:
    path = "api/models/org/repo/revision/main"
    site.faults[path] = ["500"] * 5
    with pytest.raises(WeightsError, match=r"the server responded 500 .*\(5 times in a row\)"):
        fetch.fetch_model(hub_model())
    assert len(site.asked(path)) == 5
    site.faults[path] = ["500"] * 4
    fetch.fetch_model(hub_model())


def test_the_token_goes_to_the_endpoint_and_nowhere_else(
    place: Path, site: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with fake_hub() as other:
        other.files["else/w"] = TENSORS
        site.faults[W_PATH] = [f"to {other.url}/else/w"]
        monkeypatch.setattr(web, "_request", both_allowed(web._request, other.url))
        fetch.fetch_model(hub_model())
        assert {token for _, _, token in site.seen} == {"Bearer hf_secret"}
        assert other.seen == [("else/w", None, None)]


def both_allowed(request: Any, url: str) -> Any:
    """A second address that http may go to, so that a redirect there can be looked at."""

    def make_request(target: str, first: int) -> Any:
        if not target.startswith(url):
            return request(target, first)
        new_request = request(target.replace("http://", "https://"), first)
        new_request.full_url = target
        return new_request

    return make_request


def test_a_redirect_on_the_endpoint_keeps_range_and_token(
    place: Path, site: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "t")
    site.files["moved/w"] = TENSORS
    site.faults[W_PATH] = ["cut 300000", f"to {site.url}/moved/w"]
    fetch.fetch_model(hub_model())
    assert ("moved/w", "bytes=300000-", "Bearer t") in site.seen


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("http://other.example/w", "http://other.example/w: expected an https URL"),
        ("file:///etc/passwd", "file:///etc/passwd: expected an https URL"),
        ("ftp://127.0.0.1/w", "ftp://127.0.0.1/w: expected an https URL"),
    ],
)
def test_a_redirect_may_only_lead_to_https(
    place: Path, site: FakeHub, target: str, message: str
) -> None:
    site.faults[W_PATH] = [f"to {target}"]
    with pytest.raises(WeightsError, match=message):
        fetch.fetch_model(hub_model())
    assert W not in [Path(name).name for name in list_files(place)]


def test_a_redirect_may_not_lead_from_the_public_into_a_private_network(
    place: Path, site: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = web._is_public
    monkeypatch.setattr(web, "_is_public", lambda host: host == "127.0.0.1" or public(host))
    for host in ("10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:192.168.0.1]"):
        site.faults[W_PATH] = [f"to https://{host}/w"]
        with pytest.raises(WeightsError, match=r"redirects to .*, which is not a public host"):
            fetch.fetch_model(hub_model())


@pytest.mark.parametrize("target", ["https://[bad/w", "https://host:99999/w"])
def test_a_redirect_to_no_url_is_a_sentence(place: Path, site: FakeHub, target: str) -> None:
    site.faults[W_PATH] = [f"to {target}"]
    with pytest.raises(WeightsError, match="expected a redirect to a URL, found"):
        fetch.fetch_model(hub_model())


def test_redirects_without_end_are_left(place: Path, site: FakeHub) -> None:
    site.faults[W_PATH] = [f"to {site.url}/{W_PATH}"] * 9
    with pytest.raises(WeightsError, match="found more than 5 redirects"):
        fetch.fetch_model(hub_model())
    assert len(site.asked(W_PATH)) == 6


def test_http_is_for_the_endpoint_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_hub() as other:
        model = url_model(other, b"{}", "c.json")
        monkeypatch.delenv("HF_ENDPOINT", raising=False)
        with pytest.raises(WeightsError, match="expected an https URL") as caught:
            fetch.fetch_model(model)
        assert "HF_ENDPOINT" in (caught.value.hint or "")
        assert other.seen == []
    monkeypatch.setenv("HF_ENDPOINT", "ftp://hub")
    with pytest.raises(UsageError, match="HF_ENDPOINT: expected an http or https URL"):
        fetch.fetch_model(hub_model())


def test_a_name_that_does_not_resolve_is_said_at_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://no-such-host.invalid")
    with pytest.raises(WeightsError, match="cannot be reached") as caught:
        fetch.fetch_model(hub_model())
    assert "check the network" in (caught.value.hint or "")


@pytest.mark.parametrize("body", [b"[]", b"<html>", b"[" * 100_000, b'{"sha": "main"}', b"{}"])
def test_an_answer_that_no_hub_gives_is_a_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(web, "open_url", lambda url, **more: Answer(body))
    with pytest.raises(WeightsError, match=r"expected a (JSON object|commit id)"):
        fetch.fetch_model(hub_model())


def test_another_commit_than_asked_for_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"sha": "f" * 40, "siblings": []}).encode()
    monkeypatch.setattr(web, "open_url", lambda url, **more: Answer(body))
    with pytest.raises(WeightsError, match=f"expected commit {'a' * 40}, found {'f' * 40}"):
        fetch.fetch_model(hub_model(revision="a" * 40))


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
        process = start_command(site, place, hub_model(), *words)
        out, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        return out.splitlines(), stderr

    out, _ = run("models", "fetch", "--dry-run", "tiny")
    assert out[1].split("  ")[:1] == ["tiny"]
    assert "1 MB" in out[1]
    out, stderr = run("models", "fetch", "tiny")
    assert stderr.startswith("tiny: 1 MB from org/repo (licence: MIT)\nfetch tiny: 1001/1001 kB, ")
    assert out[0].split() == ["name", "files", "bytes", "fetched", "revision", "licence", "path"]
    assert str(place / "tiny") in out[1]
    _, stderr = run("models", "fetch", "tiny")
    assert stderr == "tiny: all 1 MB present\n"
    out, _ = run("models", "verify")
    assert out == ["20 shipped and 2 fetched files as recorded"]


def test_remote_is_known_by_either_hash() -> None:
    assert Remote("u", 1, "a").has_hash
    assert Remote("u", 1, git_sha1="a").has_hash
    assert not Remote("u", 1).has_hash
