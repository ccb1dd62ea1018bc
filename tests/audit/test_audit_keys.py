"""Keys as 16 bytes: equal for equal keys only, whichever program wrote them."""

from __future__ import annotations

from hashlib import blake2b

import pyarrow as pa

from stylear.curate.audit.keys import KeyIndex, Words, encode_keys
from stylear.pair import digest


def test_digests_are_their_own_bytes() -> None:
    keys = [digest(number) for number in range(50)]
    assert encode_keys(pa.array(keys)).tolist() == [
        bytes.fromhex(key).rstrip(b"\0") for key in keys
    ]


def test_a_key_has_the_same_bytes_beside_any_others() -> None:
    keys = [digest(1), "k2", digest(3), "K" * 32, "", digest(5)]
    together = encode_keys(pa.chunked_array([keys[:2], keys[2:]], pa.string()))
    alone = [encode_keys(pa.array([key], pa.string()))[0] for key in keys]
    assert together.tolist() == alone
    assert len(set(alone)) == len(keys)
    part = pa.array(["x", *keys], pa.string()).slice(1, 2)
    assert encode_keys(part).tolist() == alone[:2]


def test_a_null_is_no_key() -> None:
    keys = encode_keys(pa.array([None, digest(1), None], pa.string()))
    assert [key == b"" for key in keys.tolist()] == [True, False, True]


def test_nobody_can_choose_a_digest_that_has_the_bytes_of_another_key() -> None:
    name = b"some-key"
    forged = blake2b(name, digest_size=16).hexdigest()
    known, chosen = encode_keys(pa.array([name.decode(), forged])).tolist()
    assert known != chosen


def test_words_are_numbered_in_the_order_in_which_they_come() -> None:
    words = Words()
    assert words.encode(pa.array(["b", None, "a", "b"])).tolist() == [0, -1, 1, 0]
    assert words.encode(pa.array(["c", "a"])).tolist() == [2, 1]
    assert words.words == ["b", "a", "c"]
    assert words.encode(pa.array([None, None], pa.string())).tolist() == [-1, -1]


def test_an_index_finds_the_first_row_of_a_key_also_where_half_of_it_is_shared() -> None:
    half = "ab" * 8
    keys = [half + digest(n)[:16] for n in (1, 2, 1, 3)] + [digest(4), digest(5), digest(4)]
    index = KeyIndex(encode_keys(pa.array(keys)))
    keys_to_find = [keys[3], half + "0" * 16, keys[4], digest(6), keys[2], "f" * 32]
    assert index.find(encode_keys(pa.array(keys_to_find))).tolist() == [3, -1, 4, -1, 0, -1]
    assert index.find_repeated().tolist() == [2, 6]
    none = KeyIndex(encode_keys(pa.array([], pa.string())))
    assert none.find(encode_keys(pa.array(keys_to_find[:2]))).tolist() == [-1, -1]
    assert none.find_repeated().tolist() == []
