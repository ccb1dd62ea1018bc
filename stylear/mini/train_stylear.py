"""Train mini-stylear: LoRA and a resampler on the frozen mini-ar, style tokens from a sibling's features.

    python -m stylear.mini.train_stylear

mini-clip, mini-vq and mini-ar must be there. Stopped, it goes on from its last checkpoint in mini-build/.
"""

from __future__ import annotations

from pathlib import Path

import torch

from stylear.device import pick_device
from stylear.mini.card import hardware, write_card
from stylear.mini.examples import FAMILIES, VARIANTS, load_examples, style_features
from stylear.mini.measure import measure_styled
from stylear.mini.options import make_parser
from stylear.mini.packing import TokenPacker
from stylear.mini.pretraining import PackedBatch, StyleInput, corrupt_codes, train
from stylear.mini.train_ar import CORRUPTION, SIDE
from stylear.model.build import attach_style_encoder
from stylear.model.lora import apply_lora
from stylear.model.open import load_model
from stylear.model.save import save_model

STYLE_TOKENS, RANK = 8, 32
RESAMPLER = {"depth": 2, "dim": 192, "heads": 4, "dim_head": 48, "ff_mult": 2}
RAW_SHARE = 0.15
TEXT_ONLY_SHARE = 0.5  # of the raw pictures: so that the model goes on drawing without a reference
UNCONDITIONAL_SHARE = 0.1
STYLE_ONLY_SHARE = 0.05  # drawn from the style tokens with an empty caption
SIGMA = 0.2  # the noise on style tokens is drawn from 0 to this


def run(
    out: Path,
    *,
    work: Path,
    base: str,
    clip: str,
    vq: str,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    limit: int | None,
) -> None:
    """Train the adapter and write its directory."""
    device = pick_device("auto")
    examples = load_examples(work, vq, device=device, limit=limit)
    model = attach_style_encoder(
        load_model(base, device), clip, STYLE_TOKENS, seed=seed, sizes=RESAMPLER
    )
    assert model.clip is not None  # attach_style_encoder made both
    assert model.resampler is not None
    features = style_features(examples.pictures, model.clip)
    apply_lora(model.decoder, RANK, seed=seed)
    model.resampler.requires_grad_(True)
    captions = examples.captions
    prompts = [
        model.encode_prompt(text, style=style) for style in (True, False) for text in captions
    ]
    prompts.append(model.encode_prompt("", style=True))
    packer = TokenPacker(model.layout, prompts, SIDE, device)
    width = model.decoder.config.hidden_size

    def draw(generator: torch.Generator) -> PackedBatch:
        chosen = examples.draw(batch_size, RAW_SHARE, generator)
        codes = examples.codes[chosen]
        text_only, drop, no_text, scale = torch.rand(
            4, batch_size, generator=generator, device=device
        )
        plain = (examples.family[chosen] < 0) & (text_only < TEXT_ONLY_SHARE)
        unconditional = drop < UNCONDITIONAL_SHARE
        prompt = examples.caption[chosen] + plain * len(captions)
        prompt[~plain & (no_text < STYLE_ONLY_SHARE)] = len(prompts) - 1
        seen = corrupt_codes(codes, CORRUPTION, generator)
        ids, columns = packer.pack(prompt, seen, unconditional)
        siblings = examples.siblings(chosen, generator).cpu()
        noise = torch.randn(batch_size, STYLE_TOKENS, width, generator=generator, device=device)
        style = StyleInput(
            features[siblings].to(device).float(),
            SIGMA * scale[:, None, None] * noise,
            ~plain & ~unconditional,
        )
        return PackedBatch(ids, columns, codes, style)

    progress = train(
        model.decoder, model.resampler, draw, work=work / "stylear", steps=steps, lr=lr, seed=seed
    )
    save_model(model.eval(), out)
    write_card(
        out,
        title="mini-stylear",
        what=f"mini-ar with {STYLE_TOKENS} style tokens: it draws a prompt in the style of a reference"
        f" picture. LoRA of rank {RANK} and a resampler; the base stays as it is.",
        data=f"Mini corpus, split `train`: {len(examples)} pictures, raw and in {VARIANTS} variants of"
        f" each of {len(FAMILIES)} styles; six styles held out.",
        command=f"python -m stylear.mini.train_stylear --steps {steps} --batch-size {batch_size}",
        hardware=hardware(device),
        seconds=progress.seconds,
        measured={
            "pictures seen": steps * batch_size,
            **measure_styled(load_model(base), load_model(out)),
        },
    )


def main() -> None:
    parser = make_parser("mini-stylear", steps=2500, batch_size=48)
    parser.add_argument("--base", default="mini-ar")
    parser.add_argument("--clip", default="mini-clip")
    parser.add_argument("--vq", default="mini-vq")
    parser.add_argument("--lr", type=float, default=2e-3)
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
