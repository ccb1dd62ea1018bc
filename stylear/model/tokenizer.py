"""New tokenizers in Chameleon's naming, trained on captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from stylear.model.families.chameleon import (
    BOS,
    EOS,
    IMAGE_END,
    IMAGE_START,
    NEWLINE,
    PAD,
    SEPARATOR,
    UNK,
    code_name,
    size_name,
)
from stylear.model.style_model import STYLE_PLACEHOLDER


def build_tokenizer(
    captions: Iterable[str],
    num_codes: int,
    size_units: Sequence[int],
    text_vocabulary: int = 4096,
) -> Tokenizer:
    """A tokenizer in Chameleon's naming: lower-cased byte-level BPE trained on captions.

    Every text is representable (bytes are in the vocabulary). `size_units` are the image sides, in
    units of two codes, that get a token; `text_vocabulary` limits the ids of text. The same
    captions give the same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    names = [BOS, PAD, EOS, UNK]
    names += [code_name(code) for code in range(num_codes)]
    names += [IMAGE_END, IMAGE_START, SEPARATOR, NEWLINE, *map(size_name, sorted(set(size_units)))]
    special = [AddedToken(name, special=True, normalized=False) for name in names]
    # the placeholder takes the space before it, so that "S* S*" is two ids and not three
    special.append(AddedToken(STYLE_PLACEHOLDER, special=True, normalized=False, lstrip=True))
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + text_vocabulary,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(captions), trainer)
    return tokenizer
