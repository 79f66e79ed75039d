"""A random model of a real one's widths in any GGUF type, for speed: values mean nothing, sizes are real.

    python bench/random_model.py TYPE FILE.gguf [--shape qwen3-0.6b] [--layers N]

Every layer holds the same few matrices, each stored anew: memory is read as in a real model, but only one layer has to
be quantised. Of a mixture of experts TYPE is that of the experts.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from nanovllm import _core


@dataclass(frozen=True)
class Shape:
    """The widths of a model."""

    architecture: str
    layers: int
    """How many the benchmarks take, which need not be all."""
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool = True
    experts: int = 0
    experts_per_token: int = 0
    rest: str | None = None
    """The type of the matrices that are not of experts, where that is another."""

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Those of a layer, `(outputs, inputs)`."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = {
            "attn_q": (queries, self.hidden),
            "attn_k": (keys, self.hidden),
            "attn_v": (keys, self.hidden),
            "attn_output": (self.hidden, queries),
        }
        up, down = (self.intermediate, self.hidden), (self.hidden, self.intermediate)
        return attention | ({} if self.experts else {"ffn_gate": up, "ffn_up": up, "ffn_down": down})

    @property
    def expert_matrices(self) -> dict[str, tuple[int, int]]:
        """Those of one expert."""
        up, down = (self.intermediate, self.hidden), (self.hidden, self.intermediate)
        return {"ffn_gate_exps": up, "ffn_up_exps": up, "ffn_down_exps": down} if self.experts else {}

    @property
    def vectors(self) -> dict[str, tuple[int, ...]]:
        """Norms, and whatever else a layer adds to its matrices."""
        hidden = (self.hidden,)
        if self.architecture != "gpt-oss":
            head = (self.head_dim,)
            return dict.fromkeys(("attn_norm.weight", "ffn_norm.weight"), hidden) | dict.fromkeys(
                ("attn_q_norm.weight", "attn_k_norm.weight"), head
            )
        biases: dict[str, tuple[int, ...]] = {f"{name}.bias": (rows,) for name, (rows, _) in self.matrices.items()}
        biases |= {f"{name}.bias": (self.experts, rows) for name, (rows, _) in self.expert_matrices.items()}
        norms = dict.fromkeys(("attn_norm.weight", "post_attention_norm.weight"), hidden)
        return norms | biases | {"attn_sinks.weight": (self.heads,), "ffn_gate_inp.bias": (self.experts,)}


SHAPES = {
    "qwen3-0.6b": Shape("qwen3", 28, 1024, 3072, 16, 8, 128, 151936),
    "qwen3-30b-a3b": Shape("qwen3moe", 8, 2048, 768, 32, 4, 128, 151936, tied=False, experts=128, experts_per_token=8),
    "gpt-oss-20b": Shape(
        "gpt-oss", 12, 2880, 2880, 64, 8, 64, 201088, tied=False, experts=32, experts_per_token=4, rest="Q8_0"
    ),
}
DENSE = "qwen3-0.6b"
LAYERS = SHAPES[DENSE].layers


def random_blocks(dtype: str, rows: int, cols: int, rng: np.random.Generator, size: float = 1.0) -> np.ndarray:
    """A matrix of normal values as bytes `[rows, bytes a row]`; of `size` 1 they are as large as trained ones."""
    _, _, type_size, can_quantize = _core.ggml_types()[dtype]
    if can_quantize:
        values = rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(size * cols**-0.5)
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


def vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    """Bytes, one merge (readers want some), and tokens that nothing merges into."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    alphabet = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(rest)}
    tokens = [alphabet[b] for b in range(256)] + ["ab"] + [f"token{i}" for i in range(257, size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * size)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(size - 1)


def settings(writer: gguf.GGUFWriter, shape: Shape, layers: int) -> None:
    """The hyperparameters."""
    writer.add_block_count(layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_vocab_size(shape.vocab)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.experts_per_token)
        writer.add_expert_feed_forward_length(shape.intermediate)
    if shape.architecture == "gpt-oss":
        writer.add_sliding_window(128)


def write(dtype: str, path: Path, layers: int | None = None, shape: Shape = SHAPES[DENSE]) -> None:
    """Write a model of this shape; the experts of a mixture are of this type.

    What layers add to a stream is small beside it in a mixture, so that which experts a token goes through follows from
    its embedding alone: see `expert_speed.py`.
    """
    layers = layers or shape.layers
    rng = np.random.default_rng(0)
    rest = shape.rest or dtype
    writer = gguf.GGUFWriter(path, shape.architecture)
    settings(writer, shape, layers)
    vocabulary(writer, shape.vocab)

    def add(name: str, data: np.ndarray, kind: str) -> None:
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])

    for name in ["token_embd.weight", *([] if shape.tied else ["output.weight"])]:
        some = random_blocks(rest, shape.vocab // 32, shape.hidden, rng)
        add(name, np.tile(some, (32, 1)), rest)
    writer.add_tensor("output_norm.weight", np.ones(shape.hidden, np.float32))
    small = 1e-3 if shape.experts else 1.0

    def size(name: str) -> float:
        return small if name.startswith(("attn_output", "ffn_down")) else 1.0

    matrices = {name: random_blocks(rest, *rows_cols, rng, size(name)) for name, rows_cols in shape.matrices.items()}
    experts = {
        name: random_blocks(dtype, shape.experts * rows, cols, rng, size(name)).reshape(shape.experts, rows, -1)
        for name, (rows, cols) in shape.expert_matrices.items()
    }
    for layer in range(layers):
        for name, data in matrices.items():
            add(f"blk.{layer}.{name}.weight", data, rest)
        for name, data in experts.items():
            add(f"blk.{layer}.{name}.weight", data, dtype)
        if shape.experts:
            router = rng.standard_normal((shape.experts, shape.hidden), dtype=np.float32)
            writer.add_tensor(f"blk.{layer}.ffn_gate_inp.weight", router)
        for name, vector in shape.vectors.items():
            fill = np.ones if name.endswith("norm.weight") else np.zeros
            writer.add_tensor(f"blk.{layer}.{name}", fill(vector, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("type", choices=sorted(_core.ggml_types()))
    parser.add_argument("file", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default=DENSE)
    parser.add_argument("--layers", type=int)
    arguments = parser.parse_args()
    write(arguments.type, arguments.file, arguments.layers, SHAPES[arguments.shape])
