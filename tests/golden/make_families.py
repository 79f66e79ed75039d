"""Makes `families/*.json` and `families/*.npz` with transformers and llama.cpp's converter. See README.md.

    PYTHONPATH=LLAMA_CPP:LLAMA_CPP/gguf-py python tests/golden/make_families.py [CASE ...]

LLAMA_CPP is a checkout of llama.cpp, whose package `conversion` says how each tensor lies in GGUF.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any
from zlib import crc32

import gguf
import numpy as np
import torch
from conversion import ModelBase, get_model_class
from family_cases import FOLDER, LENGTHS, ROWS, prompt, weights, write
from tiny import write_json
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Gemma3Config,
    Gemma3TextConfig,
    Gemma4Config,
    Gemma4TextConfig,
    Gemma4UnifiedConfig,
    GptOssConfig,
    GraniteConfig,
    GraniteMoeConfig,
    GraniteMoeHybridConfig,
    GraniteMoeSharedConfig,
    Ministral3Config,
    Mistral3Config,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)
from transformers.integrations.mxfp4 import convert_moe_packed_tensors
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

COMMON: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": None,
}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.4,
}
GEMMA3: dict[str, Any] = COMMON | {
    "vocab_size": 303,  # what llama.cpp's converter counts in the tokenizer; it leaves out further rows
    "num_hidden_layers": 7,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": 40,
}
GEMMA4: dict[str, Any] = COMMON | {
    "vocab_size": 303,
    "vocab_size_per_layer_input": 303,
    "pad_token_id": 0,
    "num_hidden_layers": 8,
    "layer_types": (["sliding_attention"] * 2 + ["full_attention"]) * 2 + ["sliding_attention", "full_attention"],
    "head_dim": 16,
    "global_head_dim": 32,
    "sliding_window": 40,
    "hidden_size_per_layer_input": 32,
}
GPT_OSS: dict[str, Any] = COMMON | {
    "head_dim": 16,
    "sliding_window": 40,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 8.0,
        "beta_slow": 1.0,
        "truncate": False,
    },
}
TOWER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
STATE: dict[str, Any] = {"mamba_n_heads": 4, "mamba_expand": 2, "mamba_d_head": 32}
"""Of layers that the dense models lack, but the converter asks for."""
CONFIGS: dict[str, PretrainedConfig] = {
    "gemma3": Gemma3TextConfig(
        **GEMMA3,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "gemma3_cap": Gemma3TextConfig(
        **GEMMA3 | {"query_pre_attn_scalar": 20, "num_hidden_layers": 4},
        layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        final_logit_softcapping=12.0,
        attention_bias=True,
        tie_word_embeddings=False,
    ),
    "gemma3_images": Gemma3Config(
        text_config=GEMMA3, vision_config=TOWER | {"model_type": "siglip_vision_model"}, mm_tokens_per_image=4
    ),
    "gemma4": Gemma4TextConfig(**GEMMA4, num_kv_shared_layers=2, use_double_wide_mlp=True),
    "gemma4_experts": Gemma4TextConfig(
        **GEMMA4 | {"hidden_size_per_layer_input": 0},
        enable_moe_block=True,
        num_experts=6,
        top_k_experts=2,
        moe_intermediate_size=32,
        attention_k_eq_v=True,
        num_global_key_value_heads=1,
        final_logit_softcapping=12.0,
    ),
    "gemma4_images": Gemma4Config(
        text_config=GEMMA4
        | {
            "hidden_size_per_layer_input": 0,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "final_logit_softcapping": 12.0,
        },
        vision_config=TOWER | {"model_type": "gemma4_vision", "head_dim": 8, "num_key_value_heads": 2},
        audio_config=None,
    ),
    "gemma4_unified": Gemma4UnifiedConfig(
        text_config=GEMMA4 | {"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 0}
    ),
    "gpt_oss": GptOssConfig(**GPT_OSS),
    "gpt_oss_mxfp4": GptOssConfig(
        **GPT_OSS | {"num_local_experts": 3, "num_experts_per_tok": 3},
        layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    ),
    "granite": GraniteConfig(
        **COMMON,
        attention_bias=True,
        attention_multiplier=0.4,
        embedding_multiplier=6.0,
        residual_multiplier=0.3,
        logits_scaling=5.0,
    ),
    "granite4": GraniteMoeHybridConfig(
        **COMMON,
        shared_intermediate_size=96,
        num_local_experts=0,
        num_experts_per_tok=0,
        layer_types=["attention"] * 4,
        position_embedding_type="rope",
        attention_multiplier=0.4,
        embedding_multiplier=6.0,
        residual_multiplier=0.3,
        logits_scaling=5.0,
        tie_word_embeddings=True,
        **STATE,
    ),
    "granite4_still": GraniteMoeHybridConfig(
        **COMMON | {"intermediate_size": 24},  # which says nothing
        shared_intermediate_size=96,
        num_local_experts=0,
        num_experts_per_tok=0,
        layer_types=["attention"] * 4,
        position_embedding_type=None,
        attention_multiplier=0.4,
        embedding_multiplier=6.0,
        residual_multiplier=0.3,
        logits_scaling=5.0,
        **STATE,
    ),
    "granite_moe": GraniteMoeConfig(
        **COMMON | {"intermediate_size": 32},
        num_local_experts=6,
        num_experts_per_tok=3,
        attention_multiplier=0.4,
        embedding_multiplier=6.0,
        residual_multiplier=0.3,
        logits_scaling=5.0,
        tie_word_embeddings=True,
    ),
    "granite_moe_shared": GraniteMoeSharedConfig(
        **COMMON | {"intermediate_size": 64},
        num_local_experts=2,
        num_experts_per_tok=1,
        shared_intermediate_size=96,
        attention_multiplier=0.4,
        embedding_multiplier=6.0,
        residual_multiplier=0.3,
        logits_scaling=1.5,
    ),
    "ministral3": Ministral3Config(
        **COMMON | {"head_dim": 16},
        rope_parameters=YARN,
    ),
    "ministral3_images": Mistral3Config(
        text_config=COMMON | {"model_type": "ministral3", "head_dim": 16, "rope_parameters": YARN},
        vision_config=TOWER | {"model_type": "pixtral", "head_dim": 8},
        tie_word_embeddings=False,
    ),
    "mistral": MistralConfig(**COMMON, sliding_window=None),
    "mistral_window": MistralConfig(**COMMON, sliding_window=40, head_dim=32),
    "phi3": Phi3Config(
        **COMMON | {"head_dim": 16},
        original_max_position_embeddings=64,
        sliding_window=200,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
            "long_factor": [1.0, 1.5, 2.5, 4.0, 6.0, 9.0],
        },
    ),
    "phi3_short": Phi3Config(
        **COMMON,
        original_max_position_embeddings=512,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0 + i / 10 for i in range(8)],
            "long_factor": [1.0 + i for i in range(8)],
        },
    ),
    "qwen2": Qwen2Config(**COMMON, tie_word_embeddings=True),
    "qwen2_windows": Qwen2Config(**COMMON, use_sliding_window=True, sliding_window=40, max_window_layers=1),
    "qwen3_moe": Qwen3MoeConfig(
        **COMMON | {"head_dim": 32},
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        norm_topk_prob=True,
    ),
    "qwen3_moe_mixed": Qwen3MoeConfig(
        **COMMON,
        num_experts=3,
        num_experts_per_tok=3,
        moe_intermediate_size=48,
        mlp_only_layers=[1],
        decoder_sparse_step=1,
    ),
    "smollm3": SmolLM3Config(**COMMON),
}
REFUSED = {"gemma3_cap", "mistral_window", "qwen2_windows", "qwen3_moe_mixed"}
"""What GGUF has no key for, and llama.cpp's converter refuses or leaves out."""
NOT_CONVERTED = REFUSED | {"granite4_still"}
"""What llama.cpp's converter leaves out though there is a key."""
UNUSED = {
    "gemma4": {
        f"model.layers.{layer}.self_attn.{tensor}.weight": shape
        for layer, width in ((6, 16), (7, 32))
        for tensor, shape in (("k_proj", [2 * width, 64]), ("v_proj", [2 * width, 64]), ("k_norm", [width]))
    }
}
"""Tensors that published files have though the model makes no use of them."""
AS_ON_THE_HUB: dict[str, dict[str, Any]] = {
    "gemma4_unified": {"text_config": {"moe_intermediate_size": None}},
    "granitemoehybrid": {"layer_types": ["attention"] * 4, "time_step_limit": None},
}
"""What published files of a model's type have in config.json where transformers 5 writes something else."""
ADDED: dict[str, dict[str, Any]] = {
    "gpt_oss_mxfp4": {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}}
}
"""What a case's config.json has beside."""
IN_BLOCKS = {"gpt_oss_mxfp4"}
"""Cases whose files have experts in blocks of MXFP4; the classes have them dense."""
EXPERTS_APART = {"qwen3_moe"}
"""Cases whose files have the tensors of each expert apart, as most published ones; the classes stack them."""
NOT_QUANTISED = (
    ".mlp.gate.weight",
    ".router.layer.weight",
    ".router.proj.weight",
    ".router.weight",
    ".per_layer_model_projection.weight",
    "_bias",
)
"""What the names of matrices end with that stay as they are: routers, biases of experts, and a Gemma's projection."""
ZERO_NORMS = ("gemma3",)
"""Families whose norms add 1 to their weights."""
GRANITE_MOE = [
    (r"experts\.gate_up_proj$", "input_linear.weight"),
    (r"experts\.down_proj$", "output_linear.weight"),
    (r"router\.weight$", "router.layer.weight"),
]
HUB = {
    "granite_moe": GRANITE_MOE,
    "granite_moe_shared": GRANITE_MOE,
    "gemma3_images": [(r"^model\.language_model", "language_model.model"), (r"^model\.", "")],
}
"""How tensors are called in files, where that is not as in the class: what to replace by what, the first that fits."""


def main() -> None:
    """Write the cases named on the command line, or all."""
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or CONFIGS:
        make(name, CONFIGS[name])


def make(name: str, config: PretrainedConfig) -> None:
    """Write both files of one case."""
    auto = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager").float().eval()
    fix_long_rope(model)
    state = {stored: values for tensor in model.state_dict().items() for stored, values in stored_as(name, *tensor)}
    if config.tie_word_embeddings:
        state.pop("lm_head.weight")
    config.architectures = [type(model).__name__]
    description = {
        "config": merged(config.to_diff_dict() | {"dtype": "float32"}, AS_ON_THE_HUB.get(config.model_type, {}))
        | ADDED.get(name, {}),
        "tensors": {tensor: list(values.shape) for tensor, values in state.items()} | UNUSED.get(name, {}),
        "vocab_size": config.get_text_config().vocab_size,
        "refused_by_gguf": name in REFUSED,
        "zero_norms": config.model_type.startswith(ZERO_NORMS) if ZERO_NORMS else False,
    }
    write_json(FOLDER / f"{name}.json", description)
    drawn = weights(name, description["tensors"], description["zero_norms"])
    arrays = run(name, model, drawn, "float32")
    arrays |= run(name, model, {tensor: at_q8_0(name, tensor, values) for tensor, values in drawn.items()}, "q8_0")
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)
    write_json(FOLDER / f"{name}.json", description | {"gguf": converted(name)})


def run(name: str, model: Any, values: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Compute the logits of every prompt, those of `ROWS` for the longest, and the likeliest token of every row."""
    state = {}
    for tensor, empty in model.state_dict().items():
        if f"{tensor}_blocks" in values:
            packed = [torch.from_numpy(values[tensor + kind]) for kind in ("_blocks", "_scales")]
            state[tensor] = convert_moe_packed_tensors(*packed, dtype=torch.float32)
            continue
        parts = [values[stored] for stored, _ in stored_as(name, tensor, empty) if stored in values]
        if parts:
            state[tensor] = torch.from_numpy(np.concatenate(parts).reshape(empty.shape))
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or [tensor for tensor in missing if tensor != "lm_head.weight"]:
        raise RuntimeError(f"{name}: {missing} are missing, {unexpected} are not known")
    model.tie_weights()
    arrays = {}
    for length in LENGTHS:
        ids = prompt(name, length, model.config.get_text_config().vocab_size)
        with torch.no_grad():
            logits = model(torch.from_numpy(ids)[None]).logits[0].numpy()
        kept = logits[ROWS] if length == max(LENGTHS) else logits
        arrays[f"{prefix}_logits_{length}"] = kept
        arrays[f"{prefix}_greedy_{length}"] = logits.argmax(axis=-1).astype(np.int16)
    return arrays


def stored_as(name: str, tensor: str, values: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """Return the tensors that one of the class is in files: one, or one for each expert and projection."""
    path, _, module = tensor.rpartition(".experts.")
    parts = {"gate_up_proj": ["gate_proj", "up_proj"], "down_proj": ["down_proj"]}.get(module if path else "", [])
    if name in IN_BLOCKS and parts:
        outputs, inputs = values.mT.shape[1:]
        blocks = values.new_empty((len(values), outputs, inputs // 32, 16))
        return [(f"{tensor}_blocks", blocks), (f"{tensor}_scales", blocks[..., 0])]
    if name not in EXPERTS_APART or not parts:
        return [(stored_name(name, tensor), values)]
    return [
        (f"{path}.experts.{expert}.{part}.weight", rows)
        for expert, matrix in enumerate(values)
        for part, rows in zip(parts, matrix.chunk(len(parts)), strict=True)
    ]


def stored_name(name: str, tensor: str) -> str:
    """Return what a tensor of the class is called in files."""
    for pattern, replacement in HUB.get(name, []):
        renamed, count = re.subn(pattern, replacement, tensor)
        if count:
            return renamed
    return tensor


def merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with changes, object by object."""
    inner = {key: merged(config[key], value) for key, value in changes.items() if isinstance(value, dict)}
    return config | changes | inner


def fix_long_rope(model: Any) -> None:
    """Choose LongRoPE's factors once, by the longest sequence there may be, as vLLM does.

    transformers chooses by the length of each call, so that keys in its cache may be rotated otherwise.
    """
    rotary = getattr(model.model, "rotary_emb", None)
    if getattr(rotary, "rope_type", None) == "longrope":
        length = model.config.max_position_embeddings
        rotary.inv_freq, _ = ROPE_INIT_FUNCTIONS["longrope"](model.config, seq_len=length)
        rotary.rope_type = "default"


def at_q8_0(name: str, tensor: str, values: np.ndarray) -> np.ndarray:
    """Return a matrix as it is after it was stored as Q8_0; some stay as they are."""
    if name.startswith("gpt_oss") and values.ndim == 3 and tensor.endswith("_proj"):
        return at_q8_0("", "", values.swapaxes(1, 2)).swapaxes(1, 2).copy()  # inputs come before outputs there
    if values.ndim < 2 or values.shape[-1] % 32 or tensor.endswith(NOT_QUANTISED) or values.dtype == np.uint8:
        return values
    kind = gguf.GGMLQuantizationType.Q8_0
    return gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind)


def converted(name: str) -> dict[str, Any] | None:
    """Return metadata and tensors (shape, type, CRC-32) of llama.cpp's own conversion, without a tokenizer.

    Returns None for a model that it does not describe.
    """
    if name in NOT_CONVERTED:
        return None
    with tempfile.TemporaryDirectory() as folder:
        directory, file = Path(folder) / "model", Path(folder) / "model.gguf"
        write(name, directory)
        hparams = ModelBase.load_hparams(directory, is_mistral_format=False)
        model_class = get_model_class(hparams["architectures"][0])
        model = model_class(directory, gguf.LlamaFileType.ALL_F32, file)
        getattr(model, "impl", model).set_vocab = lambda: None
        model.write()
        reader = gguf.GGUFReader(file)
        metadata = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        tensors = {
            tensor.name: [list(map(int, tensor.shape)), tensor.tensor_type.name, crc32(tensor.data.tobytes())]
            for tensor in reader.tensors
        }
    # What every model of the hybrid class gets, which a model without a state and without experts has no use for.
    left_over = (".ssm.", ".expert_") if name.startswith("granite4") else ()
    metadata = {key: value for key, value in metadata.items() if not any(word in key for word in left_over)}
    heads = f"{metadata['general.architecture']}.attention.head_count_kv"
    if isinstance(metadata[heads], list) and len(set(metadata[heads])) == 1:
        metadata[heads] = metadata[heads][0]
    general = ("general.name", "general.size_label", "general.type", "general.quantization_version", "general.basename")
    return {"metadata": {k: v for k, v in metadata.items() if k not in general}, "tensors": tensors}


if __name__ == "__main__":
    main()
