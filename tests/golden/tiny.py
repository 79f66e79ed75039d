"""What the scripts that make tiny checkpoints share: seeded weights, a tokenizer, and transformers' logits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PretrainedConfig, PreTrainedModel

HERE = Path(__file__).resolve().parent
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def randomise(model: PreTrainedModel, rng: np.random.Generator, std: float) -> None:
    """Fill every parameter: norm weights around 1 (spread 0.3), the rest normal with the given deviation."""
    for name, parameter in model.named_parameters():
        norm = "norm" in name
        values = rng.normal(1.0 if norm else 0.0, 0.3 if norm else std, parameter.shape)
        parameter.data = torch.from_numpy(values.astype(np.float32))
    model.tie_weights()  # assigning .data unties a shared embedding


def save_logits(model: PreTrainedModel, lengths: Sequence[int], rng: np.random.Generator, path: Path) -> None:
    """Draw one prompt of each length and save its ids and every position's float32 logits."""
    arrays: dict[str, np.ndarray] = {}
    for n in lengths:
        ids = rng.integers(0, model.config.vocab_size, n)
        with torch.no_grad():
            logits = model(torch.from_numpy(ids)[None]).logits[0]
        arrays[f"ids_{n}"], arrays[f"logits_{n}"] = ids.astype(np.int32), logits.numpy()
    np.savez_compressed(path, **arrays)


def save_tokenizer(directory: Path, size: int, pre: pre_tokenizers.PreTokenizer, nfc: bool, max_length: int) -> None:
    """Train a byte-level BPE of `size` entries and write it with a ChatML template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = (HERE / "public_domain.txt").read_text(encoding="utf-8")
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    if tokenizer.get_vocab_size() != size:
        raise RuntimeError(f"the tokenizer has {tokenizer.get_vocab_size()} entries, not {size}")
    tokenizer.save(str(directory / "tokenizer.json"))
    write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "clean_up_tokenization_spaces": False,
            "model_max_length": max_length,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def special_ids() -> dict[str, int | list[int]]:
    """Return the generation settings of both checkpoints: two end-of-sequence tokens, as real chat models have."""
    return {
        "bos_token_id": SPECIAL_TOKENS.index("<|endoftext|>"),
        "eos_token_id": [SPECIAL_TOKENS.index("<|im_end|>"), SPECIAL_TOKENS.index("<|endoftext|>")],
        "pad_token_id": SPECIAL_TOKENS.index("<|endoftext|>"),
    }


def save_configs(config: PretrainedConfig, name: str, architecture: str) -> tuple[dict, dict]:
    """Write and return the config as transformers 5 writes it, and as transformers 4 did (with `torch_dtype`)."""
    config.architectures = [architecture]
    new = config.to_diff_dict()
    new["dtype"] = "float32"
    old = {key: value for key, value in new.items() if key not in ("rope_parameters", "dtype")}
    rope = dict(new["rope_parameters"])
    old |= {"rope_theta": rope.pop("rope_theta"), "torch_dtype": "float32", "transformers_version": "4.51.3"}
    old["rope_scaling"] = None if rope == {"rope_type": "default"} else rope
    (HERE / "configs").mkdir(exist_ok=True)
    write_json(HERE / "configs" / f"{name}_transformers5.json", new)
    write_json(HERE / "configs" / f"{name}_transformers4.json", old)
    return new, old


def write_json(path: Path, value: dict) -> None:
    """Write JSON with sorted keys, so that a diff shows what changed."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
