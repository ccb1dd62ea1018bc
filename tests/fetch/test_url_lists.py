"""Claims about lists of URLs: every kind is read alike, mistakes are named, subsets choose rows."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.url_sources import rows_of, source, stream, write_list

from stylear.errors import SourceError, StylearError


def test_every_kind_of_list_is_read_alike(tmp_path: Path) -> None:
    """None of these rows can be downloaded, so no process is started."""
    table = {"url": ["ftp://a/1", "ftp://a/2", None], "caption": ["one", 'two, "2"', None]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    rows = list(zip(table["url"], table["caption"], strict=True))
    write_list(tmp_path / "a.csv", rows, ("url", "caption"))
    lines = [json.dumps({"url": url, "caption": caption}) for url, caption in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), "utf-8")
    (tmp_path / "a.tsv").write_bytes(b'url\tcaption\nftp://a/1\tone\nftp://a/2\ttwo, "2"\n\t\n')
    with gzip.open(tmp_path / "b.csv.gz", "wb") as file:
        file.write((tmp_path / "a.csv").read_bytes())
    (tmp_path / "a.json").write_text(json.dumps([json.loads(line) for line in lines]), "utf-8")
    with gzip.open(tmp_path / "c.json.gz", "wb") as file:
        file.write((tmp_path / "a.json").read_bytes())
    expected = [("one", "not-http"), ('two, "2"', "not-http"), ("", "no-caption")]
    for name in ("a.parquet", "a.csv", "a.jsonl", "a.tsv", "b.csv.gz", "a.json", "c.json.gz"):
        assert rows_of(tmp_path, name) == expected, name
    assert rows_of(tmp_path, "a.csv", limit=2) == expected[:2]
    assert len(rows_of(tmp_path, "a.*s*")) == 12


def test_list_mistakes_name_file_and_columns(tmp_path: Path) -> None:
    cases = {
        "missing.csv": (None, r"missing\.csv: expected a list"),
        "words.txt": (b"http://a/", r"words\.txt: expected one of \.parquet, \.csv"),
        "other.csv": (b"link,words\na,b\n", r"url column called 'url' or .* found 'link', 'words'"),
        "half.csv": (b"url,words\na,b\n", r"caption column called .* found 'url', 'words'"),
        "empty.csv": (b"", r"empty\.csv: expected rows, found none"),
        "broken.parquet": (b"PAR1 not really", r"broken\.parquet: expected a Parquet file"),
        "broken.json": (b'[{"url": "a"', r"broken\.json: expected JSON"),
        "object.json": (
            b'{"url": "a"}',
            r"object\.json: expected an array of objects, .* found an object with 'url'",
        ),
        "numbers.json": (b"[1]", r"numbers\.json, line 1: expected rows with a url and a caption"),
        "list.jsonl": (b"[1]", r"list\.jsonl, line 1: expected rows with a url and a caption"),
        "broken.csv.gz": (b"\x1f\x8b junk", r"broken\.csv\.gz: cannot be read"),
    }
    for name, (data, message) in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError, match=message):
            rows_of(tmp_path, name)
    with pytest.raises(SourceError, match="called 'Link'"):
        rows_of(tmp_path, "half.csv", url_column="Link")


def test_bytes_that_are_no_utf8_stop_a_list_until_its_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"url,caption\nftp://a,caf\xe9 \x00\nftp://b,second\n")
    with pytest.raises(
        SourceError, match=r"a\.csv, line 2: expected UTF-8 text, found 0xe9"
    ) as caught:
        rows_of(tmp_path, "a.csv")
    assert "encoding: cp1252" in (caught.value.hint or "")
    listed = rows_of(tmp_path, "a.csv", encoding="cp1252")
    assert [caption for caption, _ in listed] == ["café", "second"]


def test_a_wrong_network_is_a_mistake_of_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(StylearError, match="allow_networks"):
        list(stream(tmp_path, source(allow_networks=["127.0.0.1/8"])))


def subset(path: Path, uids: list[str]) -> None:
    """A DataComp subset file."""
    halves = [(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids]
    np.save(path, np.array(halves, dtype="u8,u8"))


def test_a_subset_of_uids_chooses_rows(tmp_path: Path) -> None:
    rng = random.Random(0)
    uids = [f"{rng.getrandbits(128):032x}" for _ in range(50)]
    uids[7] = uids[3][:16] + uids[7][16:]  # the same high half
    rows = [(f"ftp://a/{n}", f"thing {n}", uid) for n, uid in enumerate(uids)]
    write_list(tmp_path / "pool.csv", rows, ("url", "caption", "uid"))
    chosen = [uids[n] for n in (3, 20, 21, 49)]
    subset(tmp_path / "sorted.npy", sorted([*chosen, "0" * 32, "f" * 32]))
    subset(tmp_path / "unsorted.npy", [*chosen, "0" * 32])
    for name in ("sorted.npy", "unsorted.npy"):
        listed = rows_of(tmp_path, "pool.csv", uids=name)
        assert [caption for caption, _ in listed] == ["thing 3", "thing 20", "thing 21", "thing 49"]
    assert len(rows_of(tmp_path, "pool.csv", uids="sorted.npy", limit=2)) == 2

    subset(tmp_path / "other.npy", ["1" * 32])
    with pytest.raises(SourceError, match=r"expected rows of the subset other\.npy, found none"):
        rows_of(tmp_path, "pool.csv", uids="other.npy")
    np.save(tmp_path / "wrong.npy", np.zeros(3))
    with pytest.raises(SourceError, match="one dimension of u8,u8, found 1 of float64"):
        rows_of(tmp_path, "pool.csv", uids="wrong.npy")
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match=r"expected a subset of uids \(\.npy\)"):
        rows_of(tmp_path, "pool.csv", uids="pickled.npy")
    with pytest.raises(SourceError, match=r"none\.npy: expected a subset"):
        rows_of(tmp_path, "pool.csv", uids="none.npy")
