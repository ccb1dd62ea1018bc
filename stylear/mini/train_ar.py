"""Train mini-ar: draws what a caption says, as it is or in a training style that the caption names.

    python -m stylear.mini.train_ar

mini-vq must be there. Stopped, it goes on from its last checkpoint in mini-build/.
"""

from __future__ import annotations

from pathlib import Path

import torch

from stylear.console import say
from stylear.device import pick_device
from stylear.mini.card import hardware, write_card
from stylear.mini.drawings import drawings
from stylear.mini.everyday import EVERYDAY
from stylear.mini.examples import FAMILIES, VARIANTS, load_examples, named_style
from stylear.mini.measure import measure_base
from stylear.mini.options import make_parser
from stylear.mini.packing import TokenPacker
from stylear.mini.pretraining import PackedBatch, corrupt_codes, train
from stylear.model.build import new_model
from stylear.model.decoder_config import DecoderConfig
from stylear.model.open import load_model
from stylear.model.save import save_model
from stylear.model.tokenizer import build_tokenizer

CONFIG = DecoderConfig(
    hidden_size=192, intermediate_size=512, num_hidden_layers=6, num_attention_heads=6,
    num_key_value_heads=6, max_position_embeddings=512,
)  # fmt: skip
SIDE = 16  # codes of a side: 64 px in patches of 4
SIZE_UNITS = (SIDE // 2,)
TEXT_VOCABULARY = 2000  # every word of the captions is one token; others are spelled in pieces
RAW_SHARE = 0.15
UNCONDITIONAL_SHARE = 0.1
CORRUPTION = 0.2  # of the codes that a picture is predicted from, from 0 to this share are wrong


def run(
    out: Path,
    *,
    work: Path,
    vq: str,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    limit: int | None,
) -> None:
    """Train from random weights and write the model directory."""
    device = pick_device("auto")
    examples = load_examples(work, vq, device=device, limit=limit)
    words = {
        *(caption for split in ("train", "val") for caption in drawings(split).captions),
        *(named_style(examples.captions[0], family) for family in FAMILIES for _ in range(2)),
    }
    tokenizer = build_tokenizer(words, 1024, SIZE_UNITS, text_vocabulary=TEXT_VOCABULARY)
    start = work / "ar-start"
    if not start.is_dir():
        new_model(start, tokenizer, CONFIG, vq, seed=seed)
    model = load_model(start, device)
    say(f"mini-ar: {model.decoder.num_parameters / 1e6:.2f} M parameters, {len(examples)} pictures")
    prompts = [
        *examples.captions,
        *(named_style(caption, family) for family in FAMILIES for caption in examples.captions),
    ]
    encoded = [model.encode_prompt(text) for text in prompts]
    packer = TokenPacker(model.layout, encoded, SIDE, device)

    def draw(generator: torch.Generator) -> PackedBatch:
        chosen = examples.draw(batch_size, RAW_SHARE, generator)
        codes = examples.codes[chosen]
        prompt = (examples.family[chosen] + 1) * len(examples.captions) + examples.caption[chosen]
        chance = torch.rand(batch_size, generator=generator, device=device)
        seen = corrupt_codes(codes, CORRUPTION, generator)
        ids, columns = packer.pack(prompt, seen, chance < UNCONDITIONAL_SHARE)
        return PackedBatch(ids, columns, codes)

    model.decoder.requires_grad_(True)
    progress = train(model.decoder, None, draw, work=work / "ar", steps=steps, lr=lr, seed=seed)
    save_model(model.eval(), out)
    write_card(
        out,
        title="mini-ar",
        what="A text-to-image decoder of 3.5 M parameters in the Chameleon token layout, 256 codes a"
        " picture. It draws a caption as it is, or in a training style that the caption names.",
        data=f"Mini corpus, split `train`: {len(examples)} pictures, raw and in {VARIANTS} variants of"
        f" each of {len(FAMILIES)} styles, of which most show one of {len(EVERYDAY)} everyday things;"
        " six styles held out.",
        command=f"python -m stylear.mini.train_ar --steps {steps} --batch-size {batch_size}",
        hardware=hardware(device),
        seconds=progress.seconds,
        measured={"pictures seen": steps * batch_size, **measure_base(load_model(out))},
    )


def main() -> None:
    parser = make_parser("mini-ar", steps=6000, batch_size=48)
    parser.add_argument("--vq", default="mini-vq")
    parser.add_argument("--lr", type=float, default=2e-3)
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
