"""Write mini-ar's starting point: its vocabulary, its sizes and random weights.

    python -m stylear.mini.new_ar --out mini-build/ar-0

`stylear train sft --config manifests/train-mini-ar.yaml` trains it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stylear.mini.drawings import drawings
from stylear.model.chameleon import new_model
from stylear.model.layout import build_tokenizer
from stylear.model.transformer import DecoderConfig

CONFIG = DecoderConfig(
    hidden_size=192, intermediate_size=512, num_hidden_layers=6, num_attention_heads=6,
    num_key_value_heads=6, max_position_embeddings=256,
)  # fmt: skip
SIZE_UNITS = (4,)  # a side of 64 px is 8 codes, 4 units of two
TEXT_VOCABULARY = 2000  # every word of the captions is one token; others are spelled in pieces


def main() -> None:
    parser = argparse.ArgumentParser(description="Write mini-ar's starting point.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vq", default="mini-vq")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    captions = sorted(
        {caption for split in ("train", "val") for caption in drawings(split).captions}
    )
    tokenizer = build_tokenizer(captions, 1024, SIZE_UNITS, text_vocabulary=TEXT_VOCABULARY)
    model = new_model(options.out, tokenizer, CONFIG, options.vq, seed=options.seed)
    print(f"{options.out}: {model.decoder.num_parameters / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
