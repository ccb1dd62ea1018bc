"""Hugging Face's Trainer with PEFT on transformers' Chameleon, the peer of `train_sft.py`."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from support.random_chameleon import Setup, StepClock, build_model

from stylear.model.style_model import StyleModel
from stylear.train.data import EncodedSet, open_encoded

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "lm_head"]
RANK = 4


def open_data(setup: Setup, model: StyleModel) -> EncodedSet:
    return open_encoded(model, [setup.root / "corpus"], "train", setup.root / "encoded", copies=1)


def list_examples(setup: Setup) -> list[dict[str, list[int]]]:
    """Ids of every pair, and labels at the places of its codes."""
    data = open_data(setup, build_model(setup))
    examples = []
    for row in range(len(data)):
        batch = data.build_batch(np.array([row])).batch
        ids = batch.ids[0]
        labels = torch.full_like(ids, -100)
        labels[batch.code_columns] = ids[batch.code_columns]
        examples.append({"input_ids": ids.tolist(), "labels": labels.tolist()})
    return examples


def build_peer(setup: Setup, dtype: torch.dtype, attention: str) -> Any:
    """The same weights as transformers' Chameleon, whose forward pass leaves image logits as they are."""
    from transformers import ChameleonConfig, ChameleonForConditionalGeneration

    class Chameleon(ChameleonForConditionalGeneration):  # type: ignore[misc]
        def forward(self, input_ids: Any, attention_mask: Any, labels: Any = None) -> Any:
            hidden = self.model(
                input_ids=input_ids, attention_mask=attention_mask, use_cache=False
            )[0]
            logits = self.lm_head(hidden)
            if labels is None:
                return {"logits": logits}
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size
            )
            return {"loss": loss, "logits": logits}

    model = build_model(setup, dtype)
    sizes = asdict(setup.size.decoder)
    sizes.pop("qk_norm")
    vq = {"base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 1, "resolution": 32}
    config = ChameleonConfig(
        **sizes,
        model_parallel_size=1,
        vocabulary_map=dict(model.layout.vocabulary) | {"<image>": 3},
        vq_config=vq,
        attn_implementation=attention,
        tie_word_embeddings=False,
    )
    with torch.device(setup.device):
        peer = Chameleon(config).to(dtype)
    missing, unexpected = peer.load_state_dict(model.decoder.state_dict(), strict=False)
    assert not unexpected
    assert all("vqmodel" in name for name in missing), missing
    del peer.model.vqmodel
    return peer


def check_peer(setup: Setup) -> None:
    """Exit if the two models differ in the logits of image codes."""
    dtype, tolerance = (torch.float32, 1e-3) if setup.device == "cpu" else (torch.bfloat16, 0.1)
    model = build_model(setup, dtype)
    batch = open_data(setup, model).build_batch(np.arange(2)).batch.to(setup.device)
    peer = build_peer(setup, dtype, "sdpa").eval()
    with torch.no_grad():
        hidden = model.decoder(model.decoder.embed(batch.ids))
        columns = batch.code_columns - 1
        own = model.decoder.image_logits(hidden[batch.code_rows, columns])
        mask = torch.ones_like(batch.ids)
        theirs = peer(batch.ids, mask)["logits"][batch.code_rows, columns]
        theirs = theirs[:, list(model.layout.image_token_ids)]
    difference = (own - theirs).abs().max().item()
    if difference > tolerance * own.abs().max().item():
        raise SystemExit(f"the peer's logits differ by {difference:.2g}")


def train_peer(
    setup: Setup, *, dtype: torch.dtype = torch.float32, attention: str = "sdpa", **changes: Any
) -> list[tuple[float, float]]:
    """Seconds and CPU seconds of each step of the peer, with `changes` of its trainer's defaults."""
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainerCallback, TrainingArguments

    clock = StepClock()

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if setup.device != "cpu":
                torch.cuda.synchronize()
            clock.mark()

    def collate(examples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(example["input_ids"]) for example in examples)
        padded = {
            name: torch.tensor([e[name] + [fill] * (longest - len(e[name])) for e in examples])
            for name, fill in (("input_ids", 1), ("labels", -100))
        }
        lengths = torch.tensor([len(example["input_ids"]) for example in examples])
        mask = torch.arange(longest)[None] < lengths[:, None]
        return padded | {"attention_mask": mask.long()}

    peer = build_peer(setup, dtype, attention)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=setup.batch_size,
            max_steps=setup.steps + 1,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            gradient_checkpointing=setup.checkpointing,
            torch_compile=setup.compile,
            use_cpu=setup.device == "cpu",
            **changes,
        )
        trainer = Trainer(
            model=get_peft_model(peer, config),
            args=arguments,
            train_dataset=list_examples(setup),
            data_collator=collate,
            callbacks=[Watch()],
        )
        trainer.train()
    return clock.durations()
