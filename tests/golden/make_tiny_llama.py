"""Makes `tiny_llama/` (tied, two shards) and `tiny_llama_logits.npz` with transformers. See README.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tiny import HERE, randomise, save_configs, save_logits, save_tokenizer, special_ids, write_json
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

LENGTHS = (1, 17, 257)
VOCAB = 307  # a prime, so that the rows fill no vector evenly


def main() -> None:
    """Write the checkpoint, its tokenizer and its logits."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
        attn_implementation="eager",
    )
    rng = np.random.default_rng(20251)
    model = LlamaForCausalLM(config).float().eval()
    randomise(model, rng, std=0.1)

    directory = HERE / "tiny_llama"
    directory.mkdir(exist_ok=True)
    _save_sharded({name: t for name, t in model.state_dict().items() if name != "lm_head.weight"}, directory)
    _, old_config = save_configs(config, "tiny_llama", "LlamaForCausalLM")
    write_json(directory / "config.json", old_config)
    write_json(directory / "generation_config.json", special_ids())
    save_tokenizer(directory, VOCAB, pre_tokenizers.ByteLevel(add_prefix_space=False), nfc=False, max_length=1024)
    save_logits(model, LENGTHS, rng, HERE / "tiny_llama_logits.npz")


def _save_sharded(state: dict[str, torch.Tensor], directory: Path) -> None:
    """Two shards split in the middle of layer 0, so that the parts of a packed parameter lie in different files."""
    names = sorted(state)
    half = next(i for i, name in enumerate(names) if name.endswith("layers.0.self_attn.q_proj.weight"))
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:half], names[half:]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, directory / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(t.numel() * t.element_size() for t in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(directory / "model.safetensors.index.json", index)


if __name__ == "__main__":
    main()
