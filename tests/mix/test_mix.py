"""Mixing: ratio, order, what may not cross train and val, and shards that others can read."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import multiprocessing
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from builders.candidate_rows import Candidate, place
from builders.pictures_folder import encoded, tree

from stylear.curate.corpus.columns import connected_components
from stylear.curate.corpus.layout import ShardKind, score_path
from stylear.curate.corpus.pair_reader import PairReader, SampleLocations
from stylear.curate.corpus.parquet import read_rows, read_table, write_table
from stylear.curate.corpus.shards import iter_pairs, write_shard
from stylear.curate.corpus.split import split_of
from stylear.curate.corpus.storage import FileInfo
from stylear.curate.corpus.tars import BLOCK
from stylear.curate.engine import LOCAL, Engine
from stylear.curate.filter import filter_corpus
from stylear.curate.mix import shuffle
from stylear.curate.mix.mixing import mix_corpus
from stylear.curate.mix.shortfall import describe_shortfalls
from stylear.curate.mix.shuffle import worker_pool
from stylear.curate.recipe import Recipe
from stylear.errors import CorpusError
from stylear.pair import Origin, Pair, digest

FRACTION = 0.3


def recipe(**mix: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "raw": [{"type": "mini"}],
            "filter": {"best_of": None, "duplicates": {"exact": False, "phash_distance": None}},
            "mix": {"val_fraction": FRACTION, "shard_pairs": 7, **mix},
        }
    )


def names_in(split: str, what: str, count: int, fraction: float = FRACTION) -> list[str]:
    """Identities that the hash puts into a split."""
    names = (f"{what} {number}" for number in range(10_000))
    return [name for name in names if split_of(name, 0, fraction) == split][:count]


def raw(key: str, content: str, **changes: Any) -> Candidate:
    values: dict[str, Any] = {
        "key": key,
        "kind": "raw",
        "source": f"folder:{key}.png",
        "content": content,
        "parent": None,
        "reference": None,
        "group": None,
        "image_sha256": f"image of {key}",
        "source_sha256": f"source of {key}",
        "kept": True,
        "stage": None,
        "reason": None,
    }
    return Candidate(**values | changes)


def stylized(key: str, content: str, reference: str, **changes: Any) -> Candidate:
    return raw(key, content, kind="stylized", reference=reference, source_sha256=None, **changes)


def placed(pairs: list[Candidate], asked: Recipe) -> dict[str, str]:
    """Split or reason of every pair that the filter kept."""
    found = place(pairs, asked)
    assert [one.key for one in found] == [pair.key for pair in pairs if pair.kept]
    assert all((one.split is None) != (one.reason is None) for one in found)
    return {one.key: one.split or str(one.reason) for one in found}


# --- the ratio --------------------------------------------------------------------------------


def many(raw_count: int, stylized_count: int) -> list[Candidate]:
    contents = names_in("train", "content", raw_count)
    style = names_in("train", "reference", 1)[0]
    pairs = [raw(f"r{n}", contents[n]) for n in range(raw_count)]
    return pairs + [stylized(f"s{n}", contents[n], style) for n in range(stylized_count)]


@pytest.mark.parametrize(
    ("asked", "raw_count", "stylized_count", "taken"),
    [
        (3.0, 20, 4, 12),
        (3.0, 9, 4, 9),  # too few: all of them
        (1.0, 20, 4, 4),
        (0.5, 20, 5, 3),  # 2.5 rounds up
        (0.0, 20, 4, 0),
        (3.0, 20, 0, 20),  # a ratio to nothing asks for nothing
    ],
)
def test_raw_pairs_are_drawn_to_the_ratio(
    asked: float, raw_count: int, stylized_count: int, taken: int
) -> None:
    found = placed(many(raw_count, stylized_count), recipe(raw_per_stylized=asked))
    kinds = Counter((key[0], where) for key, where in found.items())
    assert kinds[("r", "train")] == taken
    assert kinds[("r", "ratio")] == raw_count - taken
    assert kinds[("s", "train")] == stylized_count


def test_with_too_few_raw_pairs_fewer_stylized_ones_are_taken_on_request() -> None:
    pairs = many(9, 4)
    found = placed(pairs, recipe(raw_per_stylized=3.0, on_shortfall="scale"))
    kinds = Counter((key[0], where) for key, where in found.items())
    assert kinds == {("r", "train"): 9, ("s", "train"): 3, ("s", "ratio"): 1}
    again = placed(pairs[::-1], recipe(raw_per_stylized=3.0, on_shortfall="scale"))
    assert again == found  # which ones does not depend on their order


def test_with_too_few_raw_pairs_the_mix_stops_on_request() -> None:
    with pytest.raises(
        CorpusError, match=r"train needs 12 raw pairs for its 4 stylized ones.* found 9"
    ):
        placed(many(9, 4), recipe(raw_per_stylized=3.0, on_shortfall="fail"))
    placed(many(12, 4), recipe(raw_per_stylized=3.0, on_shortfall="fail"))


def test_a_shortfall_says_what_was_asked_and_what_was_got() -> None:
    asked = recipe(raw_per_stylized=3.0).model_copy(update={"references": ("some",)})
    whole = {"train": {"raw": 299, "stylized": 100}, "val": {"raw": 3, "stylized": 1}}
    assert describe_shortfalls(whole, asked) == []  # rounding
    short = {"train": {"raw": 62, "stylized": 100}, "val": {"raw": 5, "stylized": 0}}
    first, second = describe_shortfalls(short, asked)
    assert first.startswith("train has 0.62 raw pairs for each stylized one, not the 3 asked")
    assert "mix.on_shortfall: scale" in first
    assert second.startswith("val has no stylized pair, so training cannot be validated on it")
    assert describe_shortfalls(short, recipe()) == []  # without references nothing is asked
    none = {"train": {"raw": 9, "stylized": 0}, "val": {"raw": 3, "stylized": 1}}
    assert describe_shortfalls(none, asked)[0].startswith("train has no stylized pair")


def test_the_ratio_holds_in_each_split() -> None:
    pairs = []
    for split, count in (("train", 3), ("val", 2)):
        style = names_in(split, "reference", 1)[0]
        for number, content in enumerate(names_in(split, "content", 12)):
            pairs.append(raw(f"r{split}{number}", content))
            if number < count:
                pairs.append(stylized(f"s{split}{number}", content, style))
    found = Counter((key[0], where) for key, where in placed(pairs, recipe()).items())
    assert found == {
        ("s", "train"): 3, ("r", "train"): 9, ("s", "val"): 2, ("r", "val"): 6, ("r", "ratio"): 9,
    }  # fmt: skip


def test_which_raw_pairs_are_drawn_depends_on_the_seed_and_not_on_their_order() -> None:
    pairs = many(20, 4)
    asked = recipe(val_fraction=0, raw_per_stylized=1.0)
    first = {key for key, where in placed(pairs, asked).items() if where == "train"}
    assert {k for k, where in placed(pairs[::-1], asked).items() if where == "train"} == first
    other = asked.model_copy(update={"seed": 1})
    assert {k for k, where in placed(pairs, other).items() if where == "train"} != first


def test_what_the_filter_dropped_is_not_placed() -> None:
    pairs = many(4, 1)
    pairs[0].drop("duplicate")
    pairs[4].drop("not-best")
    assert placed(pairs, recipe()) == {"r1": "train", "r2": "train", "r3": "train"}


# --- nothing crosses --------------------------------------------------------------------------

TRAIN, TRAIN_2 = names_in("train", "content", 2)
VAL, VAL_2 = names_in("val", "content", 2)
STYLE, VAL_STYLE = names_in("train", "reference", 1)[0], names_in("val", "reference", 1)[0]


def test_contents_and_references_are_where_their_hash_puts_them() -> None:
    pairs = [raw("a", TRAIN), raw("b", VAL), stylized("c", TRAIN, STYLE)]
    pairs.append(stylized("d", VAL, VAL_STYLE))
    assert placed(pairs, recipe()) == {"a": "train", "b": "val", "c": "train", "d": "val"}


def test_a_content_in_a_style_of_the_other_split_is_left_out() -> None:
    pairs = [raw("a", TRAIN), stylized("b", TRAIN, VAL_STYLE), stylized("c", VAL, STYLE)]
    assert placed(pairs, recipe()) == {"a": "train", "b": "split", "c": "split"}


def test_without_validation_everything_is_in_train() -> None:
    pairs = [raw("a", TRAIN), raw("b", VAL), stylized("c", VAL, STYLE)]
    found = placed(pairs, recipe(val_fraction=0))
    assert found == {"a": "train", "b": "train", "c": "train"}


@pytest.mark.parametrize("same", ["image_sha256", "source_sha256"])
def test_one_picture_under_two_contents_stays_in_train_alone(same: str) -> None:
    pairs = [raw("v", VAL, **{same: "x"}), raw("t", TRAIN, **{same: "x"}), raw("w", VAL_2)]
    assert placed(pairs, recipe()) == {"v": "split", "t": "train", "w": "val"}


def test_a_near_duplicate_that_the_filter_dropped_still_counts() -> None:
    """Its content is in train through another picture, so the twin must not be in val."""
    twin = raw("t", TRAIN, duplicate_of="v", kept=False, stage="filter", reason="near-duplicate")
    pairs = [raw("v", VAL), twin, raw("u", TRAIN)]
    assert placed(pairs, recipe()) == {"v": "split", "u": "train"}


def test_children_and_other_pictures_of_a_crossing_content_are_left_out_too() -> None:
    pairs = [
        raw("v", VAL, image_sha256="x"),
        raw("t", TRAIN, image_sha256="x"),
        raw("other", VAL),  # the same content in another hand
        stylized("child", VAL, VAL_STYLE, parent="v"),
    ]
    assert placed(pairs, recipe()) == {
        "v": "split", "t": "train", "other": "split", "child": "split",
    }  # fmt: skip


def test_a_chain_of_duplicates_is_one_picture() -> None:
    pairs = [
        raw("a", VAL, image_sha256="x"),
        raw("b", VAL_2, image_sha256="x", source_sha256="y"),
        raw("c", TRAIN, source_sha256="y"),
    ]
    assert placed(pairs, recipe()) == {"a": "split", "b": "split", "c": "train"}


def test_duplicates_inside_one_split_cross_nothing() -> None:
    pairs = [raw("a", VAL, image_sha256="x"), raw("b", VAL_2, image_sha256="x")]
    assert placed(pairs, recipe()) == {"a": "val", "b": "val"}


def test_stylized_pictures_of_the_same_bytes_are_not_an_identity() -> None:
    """Their contents and references are; a flat style may draw two contents alike."""
    pairs = [stylized("a", VAL, VAL_STYLE), stylized("b", TRAIN, STYLE)]
    for pair in pairs:
        pair.image_sha256 = "x"
    assert placed(pairs, recipe()) == {"a": "val", "b": "train"}


def test_identities_join_through_others() -> None:
    edges = np.array([[0, 1], [2, 3], [1, 2], [4, 4]])
    assert connected_components(6, edges[:, 0], edges[:, 1]).tolist() == [0, 0, 0, 0, 4, 5]


# --- the files --------------------------------------------------------------------------------


def stored(number: int, content: str, reference: str | None = None, image: int = -1) -> Pair:
    origin = Origin(
        "raw" if reference is None else "stylized",
        f"folder:{number}.png",
        content,
        source_sha256=digest("source", number if image < 0 else image),
        reference=reference,
        reference_sha256=None if reference is None else "0" * 64,
    )
    return Pair(
        digest("mix", number), f"{content}", encoded(number if image < 0 else image), origin
    )


def write_stage(corpus: Path, kind: ShardKind, pairs: list[Pair]) -> None:
    """Shards of 10 pairs with the hashes that filtering asks for."""
    for index, start in enumerate(range(0, len(pairs), 10)):
        part = pairs[start : start + 10]
        write_shard(corpus / kind, index, part)
        keys = [pair.key for pair in part]
        colours = ["80" * 12] * len(part)
        table = pa.table({"key": keys, "phash": ["0" * 16] * len(part), "colour": colours})
        write_table(score_path(corpus, "phash", kind, index), table)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 raw and 6 stylized pairs, one picture of them under contents of both splits; mixed."""
    corpus = tmp_path_factory.mktemp("mix")
    train, val = names_in("train", "content", 28), names_in("val", "content", 12)
    pairs = [stored(n, content) for n, content in enumerate([*train, *val])]
    pairs[39] = stored(39, val[11], image=0)  # the picture of train[0]
    write_stage(corpus, "raw", pairs)
    styles, val_styles = names_in("train", "reference", 2), names_in("val", "reference", 1)
    children = [stored(100 + n, train[n], styles[n % 2]) for n in range(4)]
    children += [stored(200 + n, val[n], val_styles[0]) for n in range(2)]
    write_stage(corpus, "stylized", children)
    filter_corpus(corpus, recipe())
    mix_corpus(corpus, recipe())
    return corpus


def files_of(corpus: Path) -> dict[str, bytes]:
    """What mixing wrote."""
    found = {f"{part}/{n}": d for part in ("train", "val") for n, d in tree(corpus / part).items()}
    return found | {"mix.parquet": (corpus / "mix.parquet").read_bytes()}


def again(corpus: Path, to: Path, asked: Recipe, workers: int = 1) -> dict[str, bytes]:
    """Mix the pairs of a corpus in another place; the files."""
    to.mkdir(exist_ok=True)
    for name in ("raw", "stylized", "scores", "verdicts.parquet"):
        if not (to / name).exists():
            (to / name).symlink_to(corpus / name)
    mix_corpus(to, asked, workers=workers)
    return files_of(to)


def test_a_mixed_corpus_has_the_counts_asked_for(written: Path) -> None:
    rows = {split: list(iter_pairs(written / split)) for split in ("train", "val")}
    kinds = {s: Counter(pair.origin.kind for pair in pairs) for s, pairs in rows.items()}
    assert kinds == {"train": {"raw": 12, "stylized": 4}, "val": {"raw": 6, "stylized": 2}}
    names = {split: sorted(p.name for p in (written / split).iterdir()) for split in rows}
    assert names == {
        "train": [*(f"0000{n}.{ext}" for n in range(3) for ext in ("parquet", "tar")), "wids.json"],
        "val": [*(f"0000{n}.{ext}" for n in range(2) for ext in ("parquet", "tar")), "wids.json"],
    }
    sizes = [len(read_rows(written / "train" / f"0000{n}.parquet")) for n in range(3)]
    assert sizes == [7, 7, 2]


def test_every_kept_pair_is_told_where_it_went(written: Path) -> None:
    rows = read_table(written / "mix.parquet").to_pylist()
    kept = read_table(written / "verdicts.parquet", ["key"])["key"].to_pylist()
    assert [row["key"] for row in rows] == kept
    assert len(kept) == 46
    for split in ("train", "val"):
        there = {pair.key for pair in iter_pairs(written / split)}
        assert there == {row["key"] for row in rows if row["split"] == split}
    out = [row for row in rows if row["split"] is None]
    assert Counter(row["reason"] for row in out) == {"ratio": 21, "split": 1}
    assert {(row["stage"], row["kept"]) for row in out} == {("mix", False)}


def test_a_duplicate_across_contents_that_would_cross_is_dropped_with_reason_split(
    written: Path,
) -> None:
    [row] = [r for r in read_table(written / "mix.parquet").to_pylist() if r["reason"] == "split"]
    assert row["key"] == digest("mix", 39)
    pictures = {
        split: {
            row["image_sha256"] for n in written.glob(f"{split}/*.parquet") for row in read_rows(n)
        }
        for split in ("train", "val")
    }
    assert not pictures["train"] & pictures["val"]
    assert len(pictures["val"]) == 8


def test_no_content_and_no_reference_crosses(written: Path) -> None:
    seen = {
        split: [(p.origin.content, p.origin.reference) for p in iter_pairs(written / split)]
        for split in ("train", "val")
    }
    for place_ in (0, 1):
        train, val = ({row[place_] for row in rows} - {None} for rows in seen.values())
        assert train
        assert val
        assert not train & val


def test_a_mixed_pair_is_the_pair_it_was(written: Path) -> None:
    before = {p.key: p for kind in ("raw", "stylized") for p in iter_pairs(written / kind)}
    mixed = [p for split in ("train", "val") for p in iter_pairs(written / split)]
    assert len(mixed) == 24
    assert all(pair == before[pair.key] for pair in mixed)


def test_mixing_again_gives_the_same_bytes_and_another_seed_another_order(
    written: Path, tmp_path: Path
) -> None:
    assert again(written, tmp_path / "same", recipe()) == files_of(written)
    # the ratio takes every raw pair here, so only the order can differ
    everything = recipe(raw_per_stylized=100, val_fraction=0)
    order = everything.model_copy(update={"seed": 1})
    again(written, tmp_path / "other", everything)
    before = [pair.key for pair in iter_pairs(tmp_path / "other" / "train")]
    mix_corpus(tmp_path / "other", order)
    after = [pair.key for pair in iter_pairs(tmp_path / "other" / "train")]
    assert sorted(before) == sorted(after)
    assert len(before) == 46
    assert before != after
    assert before != sorted(before)


def test_the_number_of_workers_changes_no_byte(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shuffle, "WORKER_BYTES", 1)
    alone = again(written, tmp_path / "one", recipe(), workers=1)
    assert len(alone) == 13
    assert again(written, tmp_path / "two", recipe(), workers=2) == alone == files_of(written)
    assert multiprocessing.active_children() == []


def test_workers_are_started_where_there_is_enough_to_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crew(gigabytes: float, workers: int = 0, engine: Engine = LOCAL) -> int:
        none = np.zeros(4, np.int32)
        sizes = np.full(4, gigabytes * 2**28, np.int32)
        samples = SampleLocations([], none, none.astype(np.int64), sizes, np.zeros(4, "S16"))
        return worker_pool({tmp_path / "train": samples}, engine, workers)

    monkeypatch.setattr(shuffle, "cores", lambda: 8)
    assert [crew(gigabytes) for gigabytes in (0, 0.9, 1, 2.5, 7)] == [1, 1, 2, 3, 4]
    assert [crew(7, workers) for workers in (1, 3, 8)] == [1, 3, 8]
    assert [crew(0, workers, Engine("ray")) for workers in (0, 3)] == [0, 3]


def test_the_files_are_told_with_their_hashes(written: Path, tmp_path: Path) -> None:
    for name in ("raw", "stylized", "scores", "verdicts.parquet"):
        (tmp_path / name).symlink_to(written / name)
    told = mix_corpus(tmp_path, recipe())
    there = [path for part in ("train", "val") for path in (tmp_path / part).iterdir()]
    assert sorted(told) == sorted([*there, tmp_path / "mix.parquet"])
    assert {path: info.sha256 for path, info in told.items()} == {
        path: FileInfo.of(path).sha256 for path in told
    }


def test_raw_and_stylized_pairs_are_shuffled_together(written: Path) -> None:
    kinds = [pair.origin.kind for pair in iter_pairs(written / "train")]
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    assert changes > 2  # in blocks it would be 1


# --- what others read -------------------------------------------------------------------------


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


# --- what is refused --------------------------------------------------------------------------


def test_verdicts_of_other_pairs_are_refused(written: Path, tmp_path: Path) -> None:
    for name in ("raw", "stylized", "scores"):
        (tmp_path / name).symlink_to(written / name)
    table = read_table(written / "verdicts.parquet")
    write_table(tmp_path / "verdicts.parquet", table.slice(1))
    with pytest.raises(CorpusError, match="it judges other pairs than the corpus has"):
        mix_corpus(tmp_path, recipe())


def test_an_image_that_changed_on_the_disk_is_not_mixed(written: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "raw", 0, [stored(1, "a"), stored(2, "b")])
    table = (tmp_path / "raw" / "00000.parquet").read_bytes()
    write_shard(tmp_path / "raw", 0, [stored(1, "a", image=5), stored(2, "b")])
    (tmp_path / "raw" / "00000.parquet").write_bytes(table)
    pictures = PairReader(tmp_path)
    assert pictures.pair(digest("mix", 2)).image == encoded(2)
    with pytest.raises(CorpusError, match=f"the image of {digest('mix', 1)} differs from the hash"):
        pictures.pair(digest("mix", 1))


def test_a_caption_that_changed_beside_its_image_is_not_mixed(
    written: Path, tmp_path: Path
) -> None:
    """The caption is written from the row, which is checked, and not from the txt member."""
    shutil.copytree(written / "raw", tmp_path / "raw")
    path = tmp_path / "raw" / "00000.tar"
    data = path.read_bytes()
    at = data.index(f"{digest('mix', 2)}.txt".encode()) + BLOCK
    path.write_bytes(data[:at] + b"#" + data[at + 1 :])
    assert again(written, tmp_path, recipe()) == files_of(written)
    assert digest("mix", 2) in {pair.key for pair in iter_pairs(tmp_path / "train")}


def test_a_pair_that_is_kept_without_an_image_is_not_mixed(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "raw", 0, [stored(1, "a"), dataclasses.replace(stored(2, "b"), image=b"")]
    )
    pictures = PairReader(tmp_path)
    assert len(pictures.samples(np.array([digest("mix", 1).encode()]))) == 1
    for number, told in ((2, "expected an image of"), (3, "expected a pair")):
        with pytest.raises(CorpusError, match=f"{told} {digest('mix', number)}, found none"):
            pictures.samples(np.array([digest("mix", number).encode()]))


def test_splits_are_a_share_of_the_identities() -> None:
    names = [f"name {number}" for number in range(2000)]
    assert sum(split_of(name, 0, 0.25) == "val" for name in names) == 482
    assert {split_of(name, 0, 0.0) for name in names} == {"train"}
    moved = sum(split_of(n, 0, 0.25) != split_of(n, 1, 0.25) for n in names)
    assert moved == 726
    more = [n for n in names if split_of(n, 0, 0.25) == "val" and split_of(n, 0, 0.4) != "val"]
    assert more == []  # a larger share only adds
