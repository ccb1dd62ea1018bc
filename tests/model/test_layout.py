"""The token layout is Chameleon's, by the vocabulary's names; any text can be said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models

from stylear.errors import WeightsError
from stylear.model.families.chameleon import ChameleonLayout, code_name
from stylear.model.layout import collate, read_tokenizer
from stylear.model.tokenizer import build_tokenizer

CAPTIONS = ["a red apple", "a green apple", "a dog on a table", "a cat, and a dog"] * 3


@pytest.fixture(scope="module")
def layout() -> ChameleonLayout:
    return ChameleonLayout(
        build_tokenizer(CAPTIONS, num_codes=12, size_units=[1, 2], text_vocabulary=400)
    )


def chameleon() -> ChameleonLayout:
    """A vocabulary with Chameleon's names at Chameleon's ids; codes shuffled as theirs are."""
    names = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    names |= {code_name((code * 5) % 8192): 4 + code for code in range(8192)}
    names |= {"<racm3:break>": 8197, "<eoss>": 8196, "S*": 16393}
    names |= {f"<reserved{n:05d}>": n + 4 for n in range(8700, 8870)}
    return ChameleonLayout(Tokenizer(models.WordLevel(names, unk_token="<unk>")))


def test_code_names_are_those_of_chameleon() -> None:
    assert [code_name(c) for c in (0, 9, 10, 8191)] == [
        "IMGIMGAZ",
        "IMGIMGJZ",
        "IMGIMGBAZ",
        "IMGIMGIBJBZ",
    ]


def test_ids_of_the_real_vocabulary_are_as_published() -> None:
    layout = chameleon()
    assert layout.num_codes == 8192
    assert (layout.sep, layout.newline, layout.image_start, layout.image_end) == (
        8710,
        8803,
        8197,
        8196,
    )
    assert (layout.size_token(16), layout.style_placeholder) == (8820, 16393)
    assert [layout.image_token_ids[c] for c in (0, 5, 10)] == [4, 5, 6]


@pytest.mark.parametrize(("pixels", "length"), [(512, 1060), (768, 2356), (1024, 4164)])
def test_image_spans_have_the_published_lengths(pixels: int, length: int) -> None:
    side = pixels // 16
    assert len(chameleon().image_span(torch.zeros(side, side, dtype=torch.long))) == length


def test_code_order_equals_transformers_mapping() -> None:
    from transformers.models.chameleon.modeling_chameleon import ChameleonImageVocabularyMapping

    layout = chameleon()
    mapping = ChameleonImageVocabularyMapping(layout.vocabulary)
    codes = torch.randint(0, 8192, (3, 7))
    expected = mapping.convert_img2bpe(codes)
    assert torch.equal(torch.tensor(layout.image_token_ids)[codes].int(), expected)


def test_image_span_by_hand(layout: ChameleonLayout) -> None:
    codes = torch.tensor([[3, 1, 0, 2], [11, 4, 4, 7]])
    names = [layout.tokenizer.id_to_token(i) for i in layout.image_span(codes)]
    assert names == [
        "<racm3:break>",
        "<reserved08801>",
        "<reserved08802>",
        *(code_name(c) for c in (3, 1, 0, 2)),
        "<reserved08799>",
        *(code_name(c) for c in (11, 4, 4, 7)),
        "<reserved08799>",
        "<eoss>",
    ]
    assert layout.code_offsets(2, 4).tolist() == [3, 4, 5, 6, 8, 9, 10, 11]
    with pytest.raises(ValueError, match="even"):
        layout.image_span(codes[:, :3])
    with pytest.raises(WeightsError, match="reserved08804"):
        layout.size_token(4)


def test_prompt_is_words_between_first_token_and_separator(layout: ChameleonLayout) -> None:
    def names(ids: list[int]) -> list[str]:
        return [layout.tokenizer.id_to_token(i) for i in ids]

    assert names(layout.encode_prompt("A red  Apple ")) == [
        "<s>",
        "Ġa",
        "Ġred",
        "Ġapple",
        "<reserved08706>",
    ]
    styled = layout.encode_prompt("a dog", 3, "{style} {prompt}")
    assert names(styled) == ["<s>", "S*", "S*", "S*", "Ġa", "Ġdog", "<reserved08706>"]
    with pytest.raises(WeightsError, match="3 times, found 0"):
        layout.encode_prompt("a dog", 3, "{prompt}")


@pytest.mark.parametrize("text", ["zürich 🍎 日本", "\x00\t'\"\\", "", "%d {prompt} {style}"])
def test_any_text_can_be_said(layout: ChameleonLayout, text: str) -> None:
    ids = layout.encode_text(text)
    assert layout.tokenizer.token_to_id("<unk>") not in ids
    assert " ".join(layout.tokenizer.decode(ids).split()) == " ".join(text.lower().split())


@pytest.mark.parametrize("name", ["S*", "<s>", "</s>", "<pad>", "<reserved08799>", "<racm3:break>"])
def test_caption_cannot_smuggle_special_tokens(layout: ChameleonLayout, name: str) -> None:
    ids = layout.encode_prompt(f"a {name}{name} dog IMGIMGBZ", 2, "{style} {prompt}")
    special = set(layout.tokenizer.get_added_tokens_decoder())
    style = layout.style_placeholder
    assert [i for i in ids if i in special] == [layout.bos, style, style, layout.sep]


def test_example_says_where_codes_and_style_tokens_stand(layout: ChameleonLayout) -> None:
    codes = torch.tensor([[3, 1], [11, 4]])
    example = layout.example("a dog", codes, 2, "{style} {prompt}")
    assert example.image_start == 6
    assert int(example.ids[6]) == layout.image_start
    assert example.style_positions.tolist() == [1, 2]
    assert example.code_positions.tolist() == [9, 10, 12, 13]
    assert example.codes.tolist() == [3, 1, 11, 4]
    free = layout.unconditional(codes)
    assert free.ids.tolist() == example.ids[6:].tolist()
    assert free.code_positions.tolist() == [3, 4, 6, 7]
    assert len(free.style_positions) == 0


def test_batch_is_padded_right_and_keeps_every_place(layout: ChameleonLayout) -> None:
    small, large = torch.tensor([[3, 1], [11, 4]]), torch.randint(0, 12, (4, 4))
    examples = [
        layout.example("a dog", small, 2, "{style} {prompt}"),
        layout.unconditional(large),
        layout.example("a cat", large, 2, "{style} {prompt}"),
    ]
    batch = collate(examples, layout.pad)
    assert batch.lengths.tolist() == [16, 24, 30]
    assert batch.ids.shape == (3, 30)
    assert set(batch.ids[0, 16:].tolist()) == {layout.pad}
    assert batch.styled.tolist() == [True, False, True]
    assert batch.style_rows.tolist() == [0, 0, 2, 2]
    assert set(batch.ids[batch.style_rows, batch.style_columns].tolist()) == {
        layout.style_placeholder
    }
    table = torch.tensor(layout.image_token_ids)
    assert len(batch.codes) == 4 + 16 + 16
    assert torch.equal(batch.ids[batch.code_rows, batch.code_columns], table[batch.codes])
    assert torch.equal(batch.codes[4:20], large.flatten())


def test_same_captions_give_the_same_tokenizer_in_any_order() -> None:
    one = build_tokenizer(CAPTIONS, 12, [2], 400)
    two = build_tokenizer(reversed(CAPTIONS), 12, [2], 400)
    assert one.to_str() == two.to_str()


def test_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(WeightsError, match=r"tokenizer\.json: expected this file"):
        ChameleonLayout(read_tokenizer(path))
    path.write_text("{}")
    with pytest.raises(WeightsError, match=r"tokenizer\.json: expected a tokenizer"):
        ChameleonLayout(read_tokenizer(path))
    Tokenizer(models.WordLevel({"<s>": 0, code_name(1): 1})).save(str(path))
    with pytest.raises(WeightsError, match="codes 0 to n, found 1"):
        ChameleonLayout(read_tokenizer(path))
