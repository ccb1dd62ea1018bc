"""The shards and indexes of the mix, read by the libraries that read them elsewhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from stylear.curate.corpus.shards import iter_pairs


def test_the_wids_index_is_read_by_wids(written: Path, tmp_path: Path) -> None:
    import wids

    for split, count in (("train", 16), ("val", 8)):
        keys = [pair.key for pair in iter_pairs(written / split)]
        data = wids.ShardListDataset(
            str(written / split / "wids.json"), transformations=[], cache_dir=str(tmp_path / split)
        )
        assert len(data) == count
        assert [data[n]["__key__"] for n in range(count)] == keys
        sample = data[count - 1]
        assert sample[".txt"].read().decode() == list(iter_pairs(written / split))[-1].caption


def test_the_wids_index_has_hash_length_and_samples_of_every_shard(written: Path) -> None:
    index = json.loads((written / "train" / "wids.json").read_text())
    shards = index.pop("shardlist")
    assert index == {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": "test-train"}
    expected = []
    for number, samples in enumerate((7, 7, 2)):
        data = (written / "train" / f"0000{number}.tar").read_bytes()
        md5 = hashlib.md5(data).hexdigest()
        entry = {"url": f"0000{number}.tar", "md5sum": md5, "nsamples": samples}
        expected.append(entry | {"filesize": len(data)})
    assert shards == expected


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves closing to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_shards_are_read_by_webdataset(written: Path) -> None:
    import webdataset

    urls = [str(path) for path in sorted((written / "train").glob("*.tar"))]
    data = (
        webdataset.WebDataset(urls, shardshuffle=False)
        .decode("rgb8")
        .to_tuple("png", "txt", "json")
    )
    samples = list(data)
    pairs = list(iter_pairs(written / "train"))
    assert [record["key"] for _, _, record in samples] == [pair.key for pair in pairs]
    assert [text for _, text, _ in samples] == [pair.caption for pair in pairs]
    assert {image.shape for image, _, _ in samples} == {(16, 16, 3)}
