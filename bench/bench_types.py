"""Every quantisation type: exactness, quality of the quantiser, error of the kernels, and speed beside llama.cpp.

    python bench/bench_types.py --llama-bin DIR [--types Q4_K,Q6_K] [--threads N] [--rounds N] [--json FILE]

DIR holds llama.cpp's `llama-bench` and `libggml-base`, built for this machine (docs/quantisation.md says how). Speed is
that of a random model of Qwen3-0.6B's shape whose matrices all have the type. Each round runs our engine with 16 and
with 8-bit activations and llama.cpp in turn, and a ratio compares figures of one round. Prints tables, then one line of
JSON with every round; `--json` writes it to a file, from which table.py makes the table of docs/quantisation.md.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import gguf
import numpy as np
from provenance import provenance, sentence
from random_model import LAYERS, write
from workload import PREFILL_TOKENS

from nanovllm import _core

HERE = Path(__file__).parent
ROOT = HERE.parent
DECODE_TOKENS = 48
# Of activations, never of weights.
ACTIVATIONS = ("Q8_1", "Q8_K")
QUANTISED = [name for name, (_, size, _, _) in _core.ggml_types().items() if size > 1 and name not in ACTIVATIONS]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit for bit, but any NaN equals any other."""
    return bool(np.all((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))))


def exact(dtype: str, blocks: int = 4096) -> bool | None:
    """Whether dequantising random bytes gives what the `gguf` package gives; None where it lacks the type."""
    number, block_size, type_size, _ = _core.ggml_types()[dtype]
    data = np.random.default_rng(1).integers(0, 256, (blocks, type_size), dtype=np.uint8)
    try:
        with np.errstate(all="ignore"):
            expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType(number))
    except NotImplementedError:
        return None
    return same(_core.dequantize(dtype, data).reshape(blocks, block_size), np.asarray(expected, np.float32))


def reference_quantizer(llama_bin: Path) -> Callable[[str, np.ndarray], np.ndarray]:
    """The quantiser of ggml itself, without importances."""
    ggml = ctypes.CDLL(str(next(llama_bin.glob("libggml-base.*"))))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip

    def quantize(dtype: str, x: np.ndarray) -> np.ndarray:
        number, block_size, type_size, _ = _core.ggml_types()[dtype]
        out = np.zeros(x.size // block_size * type_size, np.uint8)
        ggml.ggml_quantize_chunk(number, x.ctypes.data, out.ctypes.data, 0, x.shape[0], x.shape[1], None)
        return out

    return quantize


def nmse(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sum((x.ravel().astype(np.float64) - y) ** 2) / np.sum(x.astype(np.float64) ** 2))


def quality(dtype: str, reference: Callable[[str, np.ndarray], np.ndarray]) -> float | None:
    """Our quantiser's NMSE over ggml's on normal rows; None where there is none."""
    if not _core.ggml_types()[dtype][3]:
        return None
    x = np.random.default_rng(2).standard_normal((256, 1024), dtype=np.float32)
    ours = nmse(x, _core.dequantize(dtype, _core.quantize(dtype, x.ravel())))
    return ours / nmse(x, _core.dequantize(dtype, reference(dtype, x)))


def kernel_errors() -> dict[str, dict[str, float]]:
    command = ["cargo", "run", "--release", "--quiet", "-p", "nanovllm-cpu", "--example", "kernel_error"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output))


def ours(model: Path, threads: int, bits: int) -> dict[str, float]:
    command = [sys.executable, str(HERE / "type_speed.py"), str(model), str(threads), str(bits)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def peer(llama_bin: Path, model: Path, threads: int) -> dict[str, float]:
    command = [str(llama_bin / "llama-bench"), "-m", str(model), "-t", str(threads), "-r", "2", "-o", "json"]
    command += ["-p", str(PREFILL_TOKENS), "-n", str(DECODE_TOKENS)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {"prefill" if run["n_prompt"] else "decode": float(run["avg_ts"]) for run in json.loads(output)}


def measure(dtype: str, llama_bin: Path, threads: int, rounds: int, layers: int) -> dict[str, dict[str, float]]:
    """Tokens a second in every round, their medians, and the medians of the ratios, by engine."""
    results: dict[str, list[dict[str, float]]] = {"16": [], "8": [], "llama.cpp": []}
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / f"{dtype}.gguf"
        write(dtype, model, layers)
        for _ in range(rounds):
            results["16"].append(ours(model, threads, 16))
            results["8"].append(ours(model, threads, 8))
            results["llama.cpp"].append(peer(llama_bin, model, threads))
    figures = {name: {f: median(r[f] for r in rs) for f in ("decode", "prefill")} for name, rs in results.items()}
    for bits in ("16", "8"):
        pairs = list(zip(results[bits], results["llama.cpp"], strict=True))
        figures[f"ratio {bits}"] = {f: median(a[f] / b[f] for a, b in pairs) for f in ("decode", "prefill")}
    return figures | {"rounds": results}


def show(value: object, form: str) -> str:
    return "-" if value is None else format(value, form)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-bin", type=Path, required=True)
    parser.add_argument("--types", default="all", help="comma-separated, or 'all'")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--layers", type=int, default=LAYERS, help="fewer for a quick look")
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--json", type=Path, help="where to write what the last line has")
    args = parser.parse_args()
    types = QUANTISED if args.types == "all" else args.types.split(",")

    errors, reference = kernel_errors(), reference_quantizer(args.llama_bin)
    sets = sorted({name for figures in errors.values() for name in figures}, key=lambda s: (s.split("/")[1], s))
    rows: dict[str, dict[str, object]] = {}
    for dtype in types:
        print(dtype, file=sys.stderr)
        row: dict[str, object] = {"exact": exact(dtype), "quantise": quality(dtype, reference)}
        row["kernels"] = errors.get(dtype)
        timed = None if args.no_speed else measure(dtype, args.llama_bin, args.threads, args.rounds, args.layers)
        row["speed"] = timed
        rows[dtype] = row

    made = provenance(args.threads, args.rounds)
    print(f"\n{sentence(made)}\n")
    print("Dequantise equal to gguf; NMSE of our quantiser over ggml's; NMSE of the kernels (set/activation bits)")
    print(f"{'type':8}{'exact':>7}{'quant.':>8}" + "".join(f"{name:>16}" for name in sets))
    for dtype, row in rows.items():
        kernels = row["kernels"] or {}
        cells = "".join(f"{show(kernels.get(name), '.1e'):>16}" for name in sets)  # type: ignore[attr-defined]
        mark = {True: "yes", False: "NO", None: "-"}[row["exact"]]  # type: ignore[index]
        print(f"{dtype:8}{mark:>7}{show(row['quantise'], '.3f'):>8}{cells}")
    timed = {dtype: row["speed"] for dtype, row in rows.items() if row["speed"] is not None}
    if timed:
        print(f"\nTokens a second, Qwen3-0.6B's shape, {args.layers} layers; ratio to llama.cpp in the same round")
        for figure, label in (("decode", "batch 1"), ("prefill", f"prefill {PREFILL_TOKENS}")):
            print(f"{label:16}{'16-bit':>9}{'ratio':>7}{'8-bit':>9}{'ratio':>7}{'llama.cpp':>11}")
            for dtype, f in timed.items():
                ours16, ours8, other = (f[name][figure] for name in ("16", "8", "llama.cpp"))  # type: ignore[index]
                ratios = [f[f"ratio {bits}"][figure] for bits in ("16", "8")]  # type: ignore[index]
                print(f"{dtype:16}{ours16:9.1f}{ratios[0]:7.2f}{ours8:9.1f}{ratios[1]:7.2f}{other:11.1f}")
    command = [str(args.llama_bin / "llama-bench"), "--version"]
    version = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    peer_name = "llama.cpp " + version.partition("version: ")[2].split("\n")[0]
    result = {"made": made, "peer": peer_name, "layers": args.layers, "types": rows}
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
