"""Claims about brace patterns: the names that a shell and WebDataset read."""

from __future__ import annotations

import pytest

from stylear.curate.fetch.braces import expand_braces
from stylear.errors import SourceError


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("plain.tar", ["plain.tar"]),
        ("{000..002}.tar", ["000.tar", "001.tar", "002.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{0..6..3}", ["0", "3", "6"]),
        ("{a..c}", ["a", "b", "c"]),
        ("{train,val}/{0..1}", ["train/0", "train/1", "val/0", "val/1"]),
        ("{a,b{1..2}}", ["a", "b1", "b2"]),
        ("{one}.tar", ["{one}.tar"]),
        ("{x}{0..1}", ["{x}0", "{x}1"]),
        ("{,.bak}", ["", ".bak"]),
    ],
)
def test_braces_stand_for_their_names(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..99999999}", "{0..999}{0..999}{0..999}"])
def test_endless_braces_are_refused(pattern: str) -> None:
    with pytest.raises(SourceError, match="expected at most 1,000,000 names"):
        expand_braces(pattern)
