"""A random model of Qwen3-0.6B's shape in any GGUF type, for speed: values mean nothing, sizes are real.

    python bench/random_model.py TYPE FILE.gguf [--layers N]

Every layer holds the same few matrices, each stored anew: memory is read as in a real model, but only one layer has to
be quantised.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np

from nanovllm import _core

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 1024, 3072, 16, 8, 128, 151936
LAYERS = 28
MATRICES = {
    "attn_q": (HEADS * HEAD_DIM, HIDDEN),
    "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
    "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
    "attn_output": (HIDDEN, HEADS * HEAD_DIM),
    "ffn_gate": (INTERMEDIATE, HIDDEN),
    "ffn_up": (INTERMEDIATE, HIDDEN),
    "ffn_down": (HIDDEN, INTERMEDIATE),
}
NORMS = {"attn_norm": HIDDEN, "attn_q_norm": HEAD_DIM, "attn_k_norm": HEAD_DIM, "ffn_norm": HIDDEN}


def random_blocks(dtype: str, rows: int, cols: int, rng: np.random.Generator) -> np.ndarray:
    """A matrix of normal values of the size a trained one has, as bytes `[rows, bytes a row]` of the type."""
    _, _, type_size, can_quantize = _core.ggml_types()[dtype]
    if can_quantize:
        values = rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(cols**-0.5)
        return _core.quantize(dtype, values.ravel()).reshape(rows, -1)
    # Without a quantiser (those of IQ1 to IQ3 need importances): any codes, and one small scale.
    block_size = _core.ggml_types()[dtype][1]
    blocks = rng.integers(0, 256, (rows * cols // block_size, type_size), dtype=np.uint8)
    scale = np.frombuffer(np.float16(1e-3).tobytes(), np.uint8)
    if dtype == "IQ1_M":  # its scale is spread over the high nibbles of four 16-bit words, at the end
        bits = int(np.float16(1e-3).view(np.uint16))
        for i in range(4):
            high = blocks[:, type_size - 7 + 2 * i]
            blocks[:, type_size - 7 + 2 * i] = (high & 15) | (bits >> 4 * i & 15) << 4
    else:
        blocks[:, :2] = scale
    return blocks.reshape(rows, -1)


def vocabulary(writer: gguf.GGUFWriter) -> None:
    """Bytes, one merge (readers want some), and tokens that nothing merges into."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    alphabet = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(rest)}
    tokens = [alphabet[b] for b in range(256)] + ["ab"] + [f"token{i}" for i in range(257, VOCAB)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * VOCAB)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(VOCAB - 1)


def write(dtype: str, path: Path, layers: int = LAYERS) -> None:
    rng = np.random.default_rng(0)
    kind = gguf.GGMLQuantizationType[dtype]
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_block_count(layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_vocab_size(VOCAB)
    vocabulary(writer)
    some = random_blocks(dtype, VOCAB // 32, HIDDEN, rng)
    writer.add_tensor("token_embd.weight", np.tile(some, (32, 1)), raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    matrices = {name: random_blocks(dtype, *shape, rng) for name, shape in MATRICES.items()}
    for layer in range(layers):
        for name, data in matrices.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", data, raw_dtype=kind)
        for name, size in NORMS.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(size, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("type", choices=sorted(_core.ggml_types()))
    parser.add_argument("file", type=Path)
    parser.add_argument("--layers", type=int, default=LAYERS)
    arguments = parser.parse_args()
    write(arguments.type, arguments.file, arguments.layers)
