"""Pictures by key: read from where they lie, trusted only when they are those of the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.pictures_folder import raw_pair

from stylear.curate.corpus import local_copies as copies
from stylear.curate.corpus.local_copies import LocalCopies
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.records import encode_records
from stylear.curate.corpus.shards import iter_pairs, tar_samples, write_shard
from stylear.errors import CorpusError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two shards, one pair of each without an image."""
    for index in (0, 1):
        pairs = [raw_pair(4 * index + n, image=n != 1, kind="JPEG") for n in range(4)]
        write_shard(tmp_path / "raw", index, pairs)
    return tmp_path


def test_every_pair_is_found_with_its_image(corpus: Path) -> None:
    pictures = PairReader(corpus)
    pairs = list(iter_pairs(corpus / "raw"))
    assert len(pairs) == 8
    assert [pictures.pair(pair.key) for pair in pairs[::-1]] == pairs[::-1]
    with pytest.raises(CorpusError, match="expected a pair nobody, found none"):
        pictures.pair("nobody")


def test_the_row_in_the_tar_is_the_row_of_the_table(corpus: Path) -> None:
    table = read_table(corpus / "raw" / "00000.parquet")
    rows = dict(zip(table["key"].to_pylist(), encode_records(table).to_pylist(), strict=True))
    samples = dict(tar_samples(corpus / "raw" / "00000.tar"))
    assert len(samples) == 3
    assert all(files["json"] == rows[key].encode() for key, files in samples.items())


@pytest.mark.parametrize("what", ["image", "caption", "length"])
def test_a_tar_that_was_changed_is_not_trusted(corpus: Path, what: str) -> None:
    tar, pair = corpus / "raw" / "00000.tar", raw_pair(2, kind="JPEG")
    data = tar.read_bytes()
    changed = {
        "image": data.replace(pair.image, pair.image[:-1] + b"\0"),
        "caption": data.replace(b'"caption":"thing number 2', b'"caption":"thing number 3'),
        "length": data[: data.index(pair.image) + 100],
    }[what]
    assert changed != data
    tar.write_bytes(changed)
    with pytest.raises(CorpusError, match=r"/raw(/00000\.tar)?: "):
        PairReader(corpus).pair(pair.key)
    assert (
        PairReader(corpus).pair(raw_pair(6, kind="JPEG").key).image
        == raw_pair(6, kind="JPEG").image
    )


def test_no_more_files_stay_open_than_a_process_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "HANDLES", 2)
    paths = [tmp_path / str(number) for number in range(4)]
    for path in paths:
        path.write_text(f"the bytes of {path.name}")
    reading = LocalCopies()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for turn in range(3):
        assert [reading.read(path, 4, 10)[turn:] for path in paths] == [
            f"bytes of {path.name}".encode()[turn:] for path in paths
        ]
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2
    del reading
    assert len(list(Path("/proc/self/fd").iterdir())) == before
