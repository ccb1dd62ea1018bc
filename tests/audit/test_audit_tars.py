"""The audit of tars: every byte is that of the table, and a sample says what it left out."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from builders.damaged_corpus import flip_bit, forge
from builders.pictures_folder import encoded

from stylear.curate.audit.auditor import audit
from stylear.curate.audit.difference import Difference
from stylear.curate.audit.files import Unit, examine_files, open_worker
from stylear.curate.audit.tars import Sampling, TarResult, check_pairs_tar
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.shards import iter_pairs, read_shard, write_shard
from stylear.curate.corpus.storage import FileInfo
from stylear.pair import Origin, Pair

FULL = Sampling()


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A shard of five pairs, the last of them without an image."""
    pairs = [
        Pair(f"k{n}", f"thing {n}", encoded(n, 24), Origin("raw", f"folder:{n}", f"c{n}"))
        for n in range(4)
    ]
    gone = Pair("k4", "thing 4", b"", Origin("raw", "folder:4", "c4")).drop("fetch", "timeout")
    write_shard(tmp_path / "raw", 0, [*pairs, gone])
    return tmp_path / "raw" / "00000.tar"


def check(shard: Path, sampling: Sampling = FULL) -> TarResult:
    return check_pairs_tar(shard, "raw/00000.tar", sampling, md5=False)


def flip(shard: Path, text: bytes) -> None:
    data = shard.read_bytes()
    assert data.count(text) == 1
    flip_bit(shard, data.index(text))


def test_a_shard_as_written_has_no_difference_and_its_hash_is_taken(shard: Path) -> None:
    result = check_pairs_tar(shard, "raw/00000.tar", FULL, md5=True)
    assert (result.differences, result.samples, result.examined) == ([], 4, 4)
    assert result.info == FileInfo.of(shard, md5=True)


def test_a_changed_image_is_named_with_both_hashes(shard: Path) -> None:
    at = shard.read_bytes().index(encoded(2, 24))
    flip_bit(shard, at + 60)
    data = shard.read_bytes()[at : at + len(encoded(2, 24))]
    assert check(shard).differences == [
        Difference(
            "shard",
            "raw/00000.tar",
            f"an image of sha256 {hashlib.sha256(encoded(2, 24)).hexdigest()}",
            f"sha256 {hashlib.sha256(data).hexdigest()}",
            "k2",
        )
    ]


@pytest.mark.parametrize(
    ("text", "member"), [(b"thing 1\0", "k1.txt"), (b'{"key":"k1"', "k1.json")]
)
def test_a_changed_caption_or_record_is_named(shard: Path, text: bytes, member: str) -> None:
    flip(shard, text)
    [difference] = check(shard).differences
    assert (difference.key, difference.expected) == ("k1", f"{member} as its table implies")


def test_every_changed_member_is_named_not_only_the_first(shard: Path) -> None:
    flip(shard, b"thing 1\0")
    flip(shard, b"thing 3\0")
    assert [difference.key for difference in check(shard).differences] == ["k1", "k3"]


def test_a_changed_header_or_padding_is_found(shard: Path) -> None:
    data = shard.read_bytes()
    for place in (data.index(b"k2.txt") + 110, data.index(b"thing 2") + 20, len(data) - 1):
        flip_bit(shard, place)
        [difference] = check(shard).differences
        assert (difference.kind, difference.file) == ("shard", "raw/00000.tar")
        flip_bit(shard, place)
    assert check(shard).differences == []


def test_members_in_another_order_are_found(shard: Path) -> None:
    table = shard.with_suffix(".parquet").read_bytes()
    pairs = list(read_shard(shard))
    write_shard(shard.parent, 0, [pairs[1], pairs[0], *pairs[2:]])
    shard.with_suffix(".parquet").write_bytes(table)
    [difference] = check(shard).differences
    assert "expected the image of k0, found k1" in difference.found


def test_a_format_other_than_that_of_the_table_is_found(shard: Path) -> None:
    pairs = list(read_shard(shard))
    write_shard(shard.parent, 0, pairs)
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"k0.png", b"k0.gif"))
    [difference] = check(shard).differences
    assert difference.file == "raw/00000.tar"


def test_an_image_that_cannot_be_decoded_is_found_on_request(shard: Path) -> None:
    pairs = list(read_shard(shard))
    broken = replace(pairs[1], image=pairs[1].image[:60] + b"\0" * 20)
    write_shard(shard.parent, 0, [pairs[0], broken])
    assert check(shard).differences == []
    [difference] = check(shard, Sampling(decode=True)).differences
    assert (difference.kind, difference.key) == ("image", "k1")
    assert difference.expected == "a png image of 24 x 24 pixels"
    assert difference.found.startswith("one that cannot be decoded: ")


def test_a_sample_reads_some_images_and_every_caption(shard: Path) -> None:
    sampling = Sampling(share=0.5, seed=3)
    chosen = sampling.choose([f"k{n}" for n in range(4)])
    assert len(chosen) == 2
    result = check(shard, sampling)
    assert (result.samples, result.examined, result.info) == (4, 2, None)
    for number in range(4):
        place = shard.read_bytes().index(encoded(number, 24)) + 60
        flip_bit(shard, place)
        keys = [difference.key for difference in check(shard, sampling).differences]
        assert keys == ([f"k{number}"] if number in chosen else [])
        flip_bit(shard, place)
    flip(shard, b"thing 0\0")
    flip(shard, b"thing 1\0")
    flip(shard, b"thing 2\0")
    assert [difference.key for difference in check(shard, sampling).differences] == [
        "k0",
        "k1",
        "k2",
    ]


def test_each_seed_draws_another_sample_and_a_small_share_at_least_one() -> None:
    keys = [f"k{n}" for n in range(50)]
    assert len(Sampling(share=0.0001).choose(keys)) == 1
    assert Sampling(0.2, 1).choose(keys) == Sampling(0.2, 1).choose(keys)
    assert Sampling(0.2, 1).choose(keys) != Sampling(0.2, 2).choose(keys)


def test_a_sampled_audit_says_what_it_did_not_examine(corpus: Path) -> None:
    result = audit(corpus, Sampling(share=0.3, seed=5))
    assert result.passed
    examined = {check.check: check.examined for check in result.checks}["shards"]
    assert examined == "12 tars, 28 samples"
    assert result.not_examined == (
        "the images of 45 of 73 samples (seed 5)",
        "sha256 and md5 of 12 tars",
        "whether images can be decoded (--decode)",
    )
    assert audit(corpus, Sampling(decode=True)).not_examined == ()


def test_a_preference_image_of_another_pair_is_found(corpus: Path) -> None:
    path = corpus / "preferences" / "00000.tar"
    chosen = read_table(path.with_suffix(".parquet"))["chosen"][0].as_py()
    [image] = [pair.image for pair in iter_pairs(corpus / "stylized") if pair.key == chosen]
    flip_bit(path, path.read_bytes().index(image) + len(image) // 2)
    forge(corpus)
    differences = [
        difference for difference in audit(corpus).differences if difference.kind == "shard"
    ]
    assert [difference.file for difference in differences] == ["preferences/00000.tar"]
    assert differences[0].expected == f"an image of sha256 {hashlib.sha256(image).hexdigest()}"


def test_a_worker_process_finds_what_this_process_finds(corpus: Path) -> None:
    """Function, units and results cross to another process by pickle."""
    name, sampling = "train/00000.tar", Sampling(decode=True)
    flip_bit(corpus / name, 700)
    work = pickle.loads(pickle.dumps(partial(open_worker, corpus, sampling)))()
    results = pickle.loads(
        pickle.dumps(work(pickle.loads(pickle.dumps(Unit((name, "recipe.yaml"))))))
    )
    sizes = {path: (corpus / path).stat().st_size for path in (name, "recipe.yaml")}
    assert [result for _, result in examine_files(corpus, sizes, sampling, 1)] == results
    assert [len(result.differences) for result in results] == [1, 0]
