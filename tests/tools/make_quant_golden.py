"""Writes what ggml's reference quantisers make of `golden/quant_rows.py`: `tests/golden/quant_ggml.json`.

    python tests/tools/make_quant_golden.py LIBGGML_BASE [--real-rows MODEL.gguf]

LIBGGML_BASE is ggml's shared library (libggml-base.so; PyPI's `llama-cpp-python` builds one). For every type of blocks
that the engine writes, and every kind of rows, the error and the CRC-32 of ggml's blocks are stored. With
`--real-rows`, the rows of a model are drawn anew first.
"""

import argparse
import ctypes
import json
import sys
import zlib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from golden.quant_rows import all_rows, nmse
from tensor_types import IN_BLOCKS, TYPES, WRITTEN

GOLDEN = Path(__file__).parents[1] / "golden"


def function_name(name: str) -> str:
    """A type's name in the names of ggml's functions, such as q4_K or iq4_nl."""
    return name.lower().removesuffix("_k") + ("_K" if name.endswith("_K") else "")


def quantize(ggml: ctypes.CDLL, name: str, rows: np.ndarray) -> bytes:
    """The bytes of the blocks that ggml makes of `rows`."""
    _, block, size, _ = TYPES[name]
    rows = np.ascontiguousarray(rows, np.float32)
    blocks = np.zeros(rows.size // block * size, np.uint8)  # zeros, as Q8_K skips the sums of a zero block
    function = getattr(ggml, f"quantize_row_{function_name(name)}_ref")
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    function.restype = None
    function(rows.ctypes.data, blocks.ctypes.data, rows.size)
    if name == "IQ4_NL":  # ggml has another function that searches: ours must be as good as the better of the two
        searched = np.empty_like(blocks)
        function = ggml.quantize_iq4_nl
        function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
        function.restype = ctypes.c_size_t
        function(rows.ctypes.data, searched.ctypes.data, 1, rows.size, None)
        blocks = min(blocks, searched, key=lambda blocks: nmse(rows, dequantize(ggml, name, blocks.tobytes())))
    return blocks.tobytes()


def dequantize(ggml: ctypes.CDLL, name: str, blocks: bytes) -> np.ndarray:
    """The values, one-dimensional, that ggml reads from blocks."""
    _, block, size, _ = TYPES[name]
    if name == "Q8_1":  # ggml has no function: it is for activations
        fields = np.frombuffer(blocks, np.dtype([("d", "<f2"), ("s", "<f2"), ("qs", "i1", 32)]))
        return (fields["d"].astype(np.float32)[:, None] * fields["qs"]).ravel()
    values = np.empty(len(blocks) // size * block, np.float32)
    function = getattr(ggml, f"dequantize_row_{function_name(name)}")
    function.argtypes = (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64)
    function.restype = None
    function(blocks, values.ctypes.data, values.size)
    return values


def draw_real_rows(model: Path) -> None:
    """Stores 64 rows of 256 weights, from every kind of matrix of a model's first, middle and last layers."""
    from gguf import GGUFReader
    from gguf.quants import dequantize as from_blocks

    tensors = {tensor.name: tensor for tensor in GGUFReader(model).tensors}
    last = max(int(name.split(".")[1]) for name in tensors if name.startswith("blk."))
    kinds = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    names = [f"blk.{layer}.{kind}.weight" for layer in (0, last // 2, last) for kind in kinds]
    rows = [from_blocks(tensors[name].data[5:8], tensors[name].tensor_type)[:, :256] for name in names]
    embedding = tensors["token_embd.weight"]
    rows.append(from_blocks(embedding.data[1000:1001], embedding.tensor_type)[:, :256])
    stored = np.concatenate(rows).astype(np.float16)
    np.savez_compressed(GOLDEN / "quant_real_rows.npz", rows=stored)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("--real-rows", type=Path, metavar="MODEL")
    arguments = parser.parse_args()
    if arguments.real_rows:
        draw_real_rows(arguments.real_rows)
    ggml = ctypes.CDLL(str(arguments.library.resolve()))
    golden: dict[str, dict[str, list[float | int | None]]] = {}
    for name in (name for name in WRITTEN if name in IN_BLOCKS):
        for kind, rows in all_rows().items():
            blocks = quantize(ggml, name, rows)
            error = nmse(rows, dequantize(ggml, name, blocks))
            # Without a search, IQ4_NL leaves the codes of a zero block as they were in memory.
            checksum = None if name == "IQ4_NL" else zlib.crc32(blocks)
            golden.setdefault(name, {})[kind] = [float(f"{error:.6g}"), checksum]
    lines = ",\n".join(f'"{name}": {json.dumps(kinds)}' for name, kinds in golden.items())
    (GOLDEN / "quant_ggml.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
