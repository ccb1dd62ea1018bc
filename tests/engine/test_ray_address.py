"""Which Ray cluster is connected to."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from stylear.curate.engine import ray as engine
from stylear.curate.engine.ray import connect_ray
from stylear.errors import StylearError


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The addresses that Ray is asked to connect to."""
    asked: list[str | None] = []
    fake = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda address=None, **settings: asked.append(address),
        shutdown=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return asked


def test_without_an_address_a_new_cluster_is_started_whatever_ran_here_before(
    addresses: list[str | None],
) -> None:
    with connect_ray(None):
        pass
    assert addresses == ["local"]


def test_the_environment_names_a_cluster_and_the_option_another(
    addresses: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "check_address", lambda address: None)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    for named in (None, "10.0.0.2:6379"):
        with connect_ray(named):
            pass
    assert addresses == ["10.0.0.1:6379", "10.0.0.2:6379"]


def test_a_cluster_that_is_gone_is_named(addresses: list[str | None]) -> None:
    with (
        pytest.raises(StylearError, match=r"127\.0\.0\.1:9: no Ray cluster answers"),
        connect_ray("127.0.0.1:9"),
    ):
        pass
    assert addresses == []
