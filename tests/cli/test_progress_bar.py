"""The progress bar without a terminal: few lines, with the rate of this run and the time left."""

from __future__ import annotations

import pytest

from stylear import console
from stylear.console import Bar, ByteBar


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds since the start, in one place that the test sets."""
    seconds = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: seconds[0])
    return seconds


def test_a_line_comes_every_half_minute_and_one_at_the_end(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Bar("draw", total=100, unit="images") as bar:
        for second in range(1, 91):
            now[0] = float(second)
            bar.advance()
    assert capsys.readouterr().err.splitlines() == [
        "draw: 30/100 images, 1/s, 30.0 s, 70 s left",
        "draw: 60/100 images, 1/s, 60.0 s, 40 s left",
        "draw: 90/100 images, 1/s, 90.0 s, 10 s left",
        "draw: 90/100 images, 1/s, 90.0 s, 10 s left",
    ]


def test_what_an_earlier_run_did_is_no_part_of_the_rate(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Bar("draw", total=100, unit="images") as bar:
        bar.skip(80)
        now[0] = 10.0
        bar.advance(5)
    assert capsys.readouterr().err == "draw: 85/100 images, 0.5/s, 10.0 s, 30 s left\n"


def test_nothing_to_do_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("draw", total=0), ByteBar("verify", 0):
        pass
    assert capsys.readouterr().err == ""


def test_bytes_are_shown_in_megabytes_and_come_out_even(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ByteBar("audit", 2_500_000) as bar:
        for _ in range(5):
            bar.advance_bytes(500_000)
        assert bar.done == bar.total == 3
    assert capsys.readouterr().err.startswith("audit: 3/3 MB, ")
