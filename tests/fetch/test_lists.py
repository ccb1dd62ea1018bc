"""Lists as strangers write them: every row becomes a row, or the file and line are named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylear.curate.fetch.captions import choose_captions
from stylear.curate.fetch.lists import ListFormat, Row, find_lists, read_list
from stylear.curate.fetch.urls import decode_entities
from stylear.errors import SourceError

Found = list[tuple[object, object, str | None]]


def rows(path: Path, form: ListFormat | None = None, **more: Any) -> list[Row]:
    return list(read_list(path, ("url",), ("caption", "TEXT", "text"), "url", form, **more))


def read(path: Path, text: str | bytes, form: ListFormat | None = None, **more: Any) -> Found:
    """(place, caption, reason) of each row of a list with this content."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return [(row.target, row.caption, row.reason) for row in rows(path, form, **more)]


# --- delimited ----------------------------------------------------------------------------------


def test_a_tsv_has_no_quoting(tmp_path: Path) -> None:
    """Conceptual Captions has captions that begin with a quotation mark and never end it."""
    text = 'url\tcaption\nu1\t"the first\nu2\tsecond\nu3\tthe "third\n'
    assert read(tmp_path / "a.tsv", text) == [
        ("u1", '"the first', None),
        ("u2", "second", None),
        ("u3", 'the "third', None),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('url,caption\nu1,one\nu2,"two\nu3,three\nu4,four\n', 3),  # never ends
        ('url,caption\nu1,"one\nu2,"two"\n', 2),  # ends in the middle of a later field
        ('url,caption\nhttp://a/1,"one\nhttp://a/2,two"\nhttp://a/3,x\n', 2),  # ends by chance
    ],
)
def test_a_quote_that_swallows_rows_is_an_error_with_its_line(
    tmp_path: Path, text: str, line: int
) -> None:
    with pytest.raises(SourceError, match=rf"a\.csv, line {line}: a quoted field") as caught:
        read(tmp_path / "a.csv", text)
    assert "quoting: none" in (caught.value.hint or "")


def test_a_csv_may_say_that_quotes_are_text(tmp_path: Path) -> None:
    text = 'url,caption\nu1,"one\nu2,two"\n'
    assert read(tmp_path / "a.csv", text, ListFormat(quoting="none")) == [
        ("u1", '"one', None),
        ("u2", 'two"', None),
    ]


def test_a_caption_of_several_lines_is_one_row(tmp_path: Path) -> None:
    text = 'url,caption\r\nu1,"one\r\nmore, ""quoted"""\r\nu2,two\r\n'
    assert read(tmp_path / "a.csv", text) == [
        ("u1", 'one\r\nmore, "quoted"', None),
        ("u2", "two", None),
    ]


def test_a_row_of_another_width_is_dropped_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("url,caption\nu1,red, ripe\nu2\nu3,three\nu4,four,,\n\nu5,five\n")
    listed = rows(path)
    assert [(row.line, row.caption, row.reason) for row in listed] == [
        (2, None, "malformed-row"),
        (3, None, "malformed-row"),
        (4, "three", None),
        (5, "four", None),  # empty fields beyond the header, as spreadsheets leave them
        (7, "five", None),
    ]


def test_two_columns_of_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="'caption' as columns 2 and 3"):
        read(tmp_path / "a.csv", "url,caption,caption\nu,a,b\n")
    table = pa.Table.from_arrays(
        [pa.array(["u"]), pa.array(["a"]), pa.array(["b"])], ["url", "caption", "caption"]
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="'caption' as columns 2 and 3"):
        rows(tmp_path / "a.parquet")


@pytest.mark.parametrize("mark", [";", "|", "\t"])
def test_the_delimiter_is_seen_in_the_header(tmp_path: Path, mark: str) -> None:
    text = f"url{mark}caption\nu1{mark}a, b\n"
    assert read(tmp_path / "a.csv", text) == [("u1", "a, b", None)]


def test_a_list_without_header_says_how_to_name_its_columns(tmp_path: Path) -> None:
    text = "a dog\thttp://a/1\na cat\thttp://a/2\n"
    with pytest.raises(SourceError) as caught:
        read(tmp_path / "a.tsv", text)
    assert "columns: [caption, url]" in (caught.value.hint or "")
    form = ListFormat(columns=("caption", "url"))
    assert read(tmp_path / "a.tsv", text, form) == [
        ("http://a/1", "a dog", None),
        ("http://a/2", "a cat", None),
    ]


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        (None, "url,caption\nu,café\n".encode("utf-8-sig")),
        (None, "url,caption\nu,café\n".encode("utf-16")),
        (None, b"\xfe\xff" + "url,caption\nu,café\n".encode("utf-16-be")),
        ("cp1252", "url,caption\nu,café\n".encode("cp1252")),
        ("utf-16-le", "url,caption\nu,café\n".encode("utf-16-le")),
    ],
)
def test_text_is_decoded_by_its_mark_or_as_declared(
    tmp_path: Path, encoding: str | None, data: bytes
) -> None:
    assert read(tmp_path / "a.csv", data, ListFormat(encoding=encoding)) == [("u", "café", None)]


def test_text_in_another_encoding_names_line_and_setting(tmp_path: Path) -> None:
    data = "url,caption\nu1,plain\nu2,café\n".encode("latin-1")
    with pytest.raises(SourceError, match="line 3: expected UTF-8 text, found 0xe9") as caught:
        read(tmp_path / "a.csv", data)
    assert "encoding: cp1252" in (caught.value.hint or "")
    with pytest.raises(SourceError, match="unknown encoding 'klingon'"):
        read(tmp_path / "a.csv", data, ListFormat(encoding="klingon"))


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=120, deadline=None)
def test_every_line_of_a_tsv_is_a_row(
    tmp_path_factory: pytest.TempPathFactory, captions: Sequence[tuple[str]], end: str
) -> None:
    """Rows in = rows out, whatever the captions hold; only tabs and line ends cannot stand in them."""
    clean = ["".join(c for c in text if c not in "\t\r\n") for (text,) in captions]
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    lines = ["url\tcaption", *(f"u{n}\t{text}" for n, text in enumerate(clean))]
    path.write_bytes((end.join(lines) + end).encode())
    assert [row.target for row in rows(path)] == [f"u{n}" for n in range(len(clean))]
    assert [row.caption for row in rows(path)] == clean


@given(st.lists(st.text('ab",\n;é\t ', max_size=10), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_no_row_of_a_csv_vanishes_in_silence(
    tmp_path_factory: pytest.TempPathFactory, captions: list[str]
) -> None:
    """Of lines written without any quoting each is a row, or the list is refused with a line."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    lines = [
        f"http://a/{n},{text}" for n, text in enumerate(" ".join(c.split("\n")) for c in captions)
    ]
    path.write_bytes(("url,caption\n" + "\n".join(lines) + "\n").encode())
    try:
        listed = rows(path)
    except SourceError as error:
        named = "line " in error.message
        listed = []
    else:
        named = len(listed) == len(lines)
    assert named


# --- JSON ---------------------------------------------------------------------------------------


def test_columns_are_looked_for_in_many_rows(tmp_path: Path) -> None:
    text = '{"url": "u1"}\n\n{"url": "u2", "caption": "two"}\n{"url": "u3", "TEXT": "three"}\n'
    assert read(tmp_path / "a.jsonl", text) == [
        ("u1", None, None),
        ("u2", "two", None),
        ("u3", "three", None),
    ]


def test_a_cut_off_line_is_dropped_and_the_rest_is_read(tmp_path: Path) -> None:
    text = '{"url": "u1", "caption": "one"}\n[1]\n{"url": "u2", "capt'
    assert read(tmp_path / "a.jsonl", text) == [
        ("u1", "one", None),
        (None, None, "malformed-row"),
        (None, None, "malformed-row"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"url": {"0": "u1", "1": "u2"}, "caption": {"0": "one", "1": "two"}},  # pandas
        {"url": ["u1", "u2"], "caption": ["one", "two"]},
        {  # COCO
            "images": [{"id": 7, "coco_url": "u1"}, {"id": 8, "coco_url": "u2"}],
            "annotations": [{"image_id": 8, "caption": "two"}, {"image_id": 7, "caption": "one"}],
        },
    ],
)
def test_json_is_read_in_the_forms_that_tools_write(tmp_path: Path, value: object) -> None:
    listed = read(tmp_path / "a.json", json.dumps(value))
    captions = [choose_captions(caption, "first", 0, "")[0] for _, caption, _ in listed]
    assert ([place for place, _, _ in listed], captions) == (["u1", "u2"], ["one", "two"])


def test_captions_that_are_numbers_are_an_error_before_any_download(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected text in column 'caption', found int 5"):
        read(tmp_path / "a.jsonl", '{"url": "u", "caption": 5}\n')
    text = '{"url": "u", "caption": 5}\n{"url": "v", "caption": "a text"}\n'
    assert read(tmp_path / "a.jsonl", text)[1] == (
        "v",
        "a text",
        None,
    )  # one number is its row's fault


def test_several_columns_are_fallbacks_for_missing_values(tmp_path: Path) -> None:
    text = '{"url": "u1", "caption": null, "text": "one"}\n{"url": "u2", "caption": "two"}\n'
    assert read(tmp_path / "a.jsonl", text, fall_back=True) == [
        ("u1", "one", None),
        ("u2", "two", None),
    ]
    assert read(tmp_path / "a.jsonl", text)[0] == ("u1", None, None)


@pytest.mark.parametrize(
    ("rule", "expected"), [("first", ["a"]), ("all", ["a", "b"]), ("random", ["a"])]
)
def test_of_several_captions_the_rule_decides(rule: Any, expected: list[str]) -> None:
    assert choose_captions(["", "a", "b", "a", None], rule, 1, "u") == expected
    assert choose_captions([{"caption": "a"}, {"raw": "b"}], rule, 1, "u") == expected


def test_a_caption_drawn_by_seed_is_any_of_them() -> None:
    captions = {str(choose_captions(["a", "b"], "random", seed, "u")[0]) for seed in range(20)}
    assert captions == {"a", "b"}


def test_a_list_without_a_text_is_no_caption() -> None:
    assert choose_captions([], "all", 0, "u") == [None]
    assert choose_captions([3, None], "first", 0, "u") == [None]
    assert choose_captions("one", "all", 0, "u") == ["one"]


# --- Parquet ------------------------------------------------------------------------------------


def test_text_stored_as_bytes_is_text(tmp_path: Path) -> None:
    table = pa.table(
        {"url": pa.array([b"u1", b"u2"]), "caption": pa.array(["é".encode(), b"\xe9"])}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    listed = [(row.target, row.caption, row.reason) for row in rows(tmp_path / "a.parquet")]
    assert listed == [("u1", "é", None), ("u2", None, "not-utf8")]


def test_a_damaged_text_drops_its_row_alone(tmp_path: Path) -> None:
    bad = pa.array([b"one", b"t\xffo", b"three"]).view(pa.binary())
    caption = pa.StringArray.from_buffers(3, *bad.buffers()[1:], bad.buffers()[0])
    pq.write_table(
        pa.table({"url": ["u1", "u2", "u3"], "caption": caption}), tmp_path / "a.parquet"
    )
    captions = [(row.caption, row.reason) for row in rows(tmp_path / "a.parquet")]
    assert captions == [("one", None), (None, "not-utf8"), ("three", None)]


def test_columns_that_nobody_asked_for_cannot_stop_a_list(tmp_path: Path) -> None:
    odd = {
        "zone": pa.array([0, 1], pa.timestamp("us", tz="Mars/Olympus")),
        "date": pa.array([2**50, 0], pa.timestamp("s")),
        "maps": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int8())),
        "floats": pa.array([[1.0], None], pa.list_(pa.float32())),
    }
    table = pa.table({"url": ["u1", "u2"], "caption": ["one", "two"], **odd})
    pq.write_table(table, tmp_path / "a.parquet")
    assert [row.caption for row in rows(tmp_path / "a.parquet")] == ["one", "two"]


def test_a_folder_of_parts_is_read_without_other_files(tmp_path: Path) -> None:
    for name in ("part-1", "part-0"):
        pq.write_table(pa.table({"url": [name], "caption": ["x"]}), tmp_path / f"{name}.parquet")
    for name in (
        "._part-0.parquet",
        ".hidden.csv",
        "_SUCCESS",
        "part-0.parquet.crc",
        "dataset_info.json",
    ):
        (tmp_path / name).write_text("{}")
    (tmp_path / "00000_stats.json").write_text("{}")
    assert [path.name for path in find_lists(tmp_path)] == ["part-0.parquet", "part-1.parquet"]
    (tmp_path / "more.csv").write_text("url,caption\n")
    with pytest.raises(SourceError, match=r"lists of one kind, found \.csv and \.parquet"):
        find_lists(tmp_path)


def test_parts_without_rows_and_columns_of_other_names_are_reported(tmp_path: Path) -> None:
    empty = pa.table({"url": pa.array([], pa.string()), "caption": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet", can_be_empty=True) == []
    pq.write_table(pa.table({"url": ["u"], "words": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"b\.parquet: expected a caption column"):
        rows(tmp_path / "b.parquet")
    pq.write_table(pa.table({"image": ["u"], "caption": ["x"]}), tmp_path / "c.parquet")
    with pytest.raises(SourceError) as caught:
        rows(tmp_path / "c.parquet")
    assert "type: parquet" in (caught.value.hint or "")


def test_a_list_that_is_no_gzip_is_read_whatever_its_ending(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv.gz", "url,caption\nu,one\n") == [("u", "one", None)]


def test_entities_of_html_are_decoded_and_parameters_are_not() -> None:
    assert decode_entities("http://a/?x=1&amp;y=2&#38;z") == "http://a/?x=1&y=2&z"
    assert decode_entities("http://a/?x=1&copy=2&amp=3") == "http://a/?x=1&copy=2&amp=3"
