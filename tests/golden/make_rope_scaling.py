"""Makes `rope_scaling.json`: each rotary scaling as transformers computes it. See README.md."""

from __future__ import annotations

from typing import Any

from tiny import HERE, write_json
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}

# name: (head_dim, rope_theta, max_position_embeddings, rope_parameters without theta, sequence length)
CASES: dict[str, tuple[int, float, int, dict[str, Any], int | None]] = {
    "default": (64, 1e4, 4096, {"rope_type": "default"}, None),
    "linear": (64, 1e4, 8192, {"rope_type": "linear", "factor": 4.0}, None),
    "dynamic_short": (64, 1e4, 4096, {"rope_type": "dynamic", "factor": 2.0}, 1000),
    "dynamic_long": (64, 1e4, 4096, {"rope_type": "dynamic", "factor": 2.0}, 10000),
    "llama3_1": (128, 5e5, 131072, {"rope_type": "llama3", "factor": 8.0} | LLAMA3, None),
    "llama3_2": (64, 5e5, 131072, {"rope_type": "llama3", "factor": 32.0} | LLAMA3, None),
    "yarn_qwen3": (
        128,
        1e6,
        131072,
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        None,
    ),
    "yarn_options": (
        64,
        1e4,
        65536,
        {
            "rope_type": "yarn",
            "factor": 16.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 24.0,
            "beta_slow": 2.0,
            "truncate": False,
            "attention_factor": 1.25,
        },
        None,
    ),
    "yarn_mscale": (
        64,
        1e4,
        163840,
        {
            "rope_type": "yarn",
            "factor": 40.0,
            "original_max_position_embeddings": 4096,
            "mscale": 1.0,
            "mscale_all_dim": 0.707,
        },
        None,
    ),
}


def main() -> None:
    """Write every case."""
    cases = {}
    for name, (width, theta, max_position, parameters, seq_len) in CASES.items():
        config = LlamaConfig(
            hidden_size=4 * width,
            num_attention_heads=4,
            head_dim=width,
            max_position_embeddings=max_position,
            rope_parameters=parameters | {"rope_theta": theta},
        )
        if parameters["rope_type"] == "default":
            inv_freq, attention_factor = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
        else:
            inv_freq, attention_factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu", seq_len=seq_len)
        cases[name] = {
            "config": {
                "hidden_size": 4 * width,
                "num_attention_heads": 4,
                "head_dim": width,
                "max_position_embeddings": max_position,
                "rope_theta": theta,
                "rope_scaling": parameters,
            },
            "seq_len": seq_len,
            "inv_freq": inv_freq.tolist(),
            "attention_factor": float(attention_factor),
        }
    write_json(HERE / "rope_scaling.json", cases)


if __name__ == "__main__":
    main()
