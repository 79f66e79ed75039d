"""Makes `tiny_qwen3/` and `tiny_qwen3_logits.npz` with transformers. See README.md."""

from __future__ import annotations

import numpy as np
from safetensors.torch import save_file
from tiny import HERE, randomise, save_configs, save_logits, save_tokenizer, special_ids, write_json
from tokenizers import Regex, pre_tokenizers
from transformers import Qwen3Config, Qwen3ForCausalLM

LENGTHS = (1, 5, 17, 255, 256, 257, 300)  # around nano-vLLM's block of 256
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def main() -> None:
    """Write the checkpoint, its tokenizer and its logits."""
    config = Qwen3Config(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=2,
        attn_implementation="eager",
    )
    rng = np.random.default_rng(20250)
    model = Qwen3ForCausalLM(config).float().eval()
    randomise(model, rng, std=0.1)

    directory = HERE / "tiny_qwen3"
    directory.mkdir(exist_ok=True)
    save_file(model.state_dict(), directory / "model.safetensors", {"format": "pt"})
    new_config, _ = save_configs(config, "tiny_qwen3", "Qwen3ForCausalLM")
    write_json(directory / "config.json", new_config)
    write_json(directory / "generation_config.json", special_ids())
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    # 20 entries fewer than the embedding has rows, as in the real Qwen3.
    save_tokenizer(directory, 300, pre_tokenizers.Sequence([split, byte_level]), nfc=True, max_length=1024)
    save_logits(model, LENGTHS, rng, HERE / "tiny_qwen3_logits.npz")


if __name__ == "__main__":
    main()
