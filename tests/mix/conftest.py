"""A mixed corpus that the tests of the mix look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.mixed_corpus import mix_recipe, names_in, stored_pair, write_stage

from stylear.curate.filter import filter_corpus
from stylear.curate.mix.mixing import mix_corpus


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 raw and 6 stylized pairs, one picture of them under contents of both splits; mixed."""
    corpus = tmp_path_factory.mktemp("mix")
    train, val = names_in("train", "content", 28), names_in("val", "content", 12)
    pairs = [stored_pair(n, content) for n, content in enumerate([*train, *val])]
    pairs[39] = stored_pair(39, val[11], image=0)  # the picture of train[0]
    write_stage(corpus, "raw", pairs)
    styles, val_styles = names_in("train", "reference", 2), names_in("val", "reference", 1)
    children = [stored_pair(100 + n, train[n], styles[n % 2]) for n in range(4)]
    children += [stored_pair(200 + n, val[n], val_styles[0]) for n in range(2)]
    write_stage(corpus, "stylized", children)
    filter_corpus(corpus, mix_recipe())
    mix_corpus(corpus, mix_recipe())
    return corpus
