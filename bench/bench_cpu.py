"""Speed and memory on the CPU, beside llama.cpp where llama-cpp-python is installed.

    python bench/bench_cpu.py MODEL.gguf [--threads N] [--rounds N] [--peer-python PATH] [--json FILE]

Each round runs each engine once in a process of its own, in turn, so that a ratio compares figures of the same minutes.
Prints a table of medians, the ratios, how often each engine agrees with float32 (agreement.py), and one line of JSON
last, which has every round; `--json` writes it to a file, from which table.py makes README's table.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from threading import Thread
from time import perf_counter

import agreement
import numpy as np
from provenance import peer_version, provenance, sentence

HERE = Path(__file__).parent
FIGURES = {
    "decode_tok_s": "decode, batch 1 (tok/s)",
    "prefill_tok_s": "prefill, 512 tokens (tok/s)",
    "workload_tok_s": "32 sequences, 100-512 in and out (output tok/s)",
    "peak_memory_mb": "peak memory (MB)",
}


def read_bandwidth(threads: int, size: int = 256 << 20) -> float:
    """GB/s of reading memory with `threads` threads: a reduction over large arrays, the best of five."""
    arrays = [np.ones(size // 8, dtype=np.uint64) for _ in range(threads)]
    best = 0.0
    for _ in range(5):
        workers = [Thread(target=np.bitwise_or.reduce, args=(array,)) for array in arrays]
        start = perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, threads * size / (perf_counter() - start) / 1e9)
    return best


def run(engine: list[str], model: str, threads: int) -> dict[str, float | str]:
    """One round of one engine, given as a Python, a script and what follows the common arguments."""
    python, script, *options = engine
    command = [python, str(HERE / script), model, str(threads), *options]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, float | str] = json.loads(output.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has llama-cpp-python")
    parser.add_argument("--json", type=Path, help="where to write what the last line has")
    args = parser.parse_args()

    engines = {
        "nanovllm-rs": [sys.executable, "ours.py", "16"],
        "8-bit act.": [sys.executable, "ours.py", "8"],
    }
    made = provenance(args.threads, args.rounds)
    if peer := peer_version(args.peer_python):
        engines["llama.cpp"] = [args.peer_python, "llama_cpp_peer.py"]
    else:
        print("llama-cpp-python is not installed: no peer (pip install llama-cpp-python, or --peer-python)")
    bandwidths = []
    rounds: dict[str, list[dict[str, float | str]]] = {name: [] for name in engines}
    for i in range(args.rounds):
        bandwidths.append(read_bandwidth(args.threads))
        for name, engine in engines.items():
            print(f"round {i + 1} of {args.rounds}: {name}", file=sys.stderr)
            rounds[name].append(run(engine, args.model, args.threads))

    size = Path(args.model).stat().st_size
    bandwidth = median(bandwidths)
    medians = {name: {f: median(float(r[f]) for r in results) for f in FIGURES} for name, results in rounds.items()}
    share = {name: size * m["decode_tok_s"] / 1e9 / bandwidth for name, m in medians.items()}
    ratios = {}
    if "llama.cpp" in medians:
        for name in ("nanovllm-rs", "8-bit act."):
            pairs = list(zip(rounds[name], rounds["llama.cpp"], strict=True))
            ratios[name] = {f: median(float(a[f]) / float(b[f]) for a, b in pairs) for f in FIGURES}

    agreements = agreement.measure(args.model, args.threads, args.peer_python)
    print(f"\n{sentence(made)}")
    for name, results in rounds.items():
        print(f"  {name}: {results[0]['description']}")
    print(f"  {Path(args.model).name}: {size / 1e6:.1f} MB; memory reads at {bandwidth:.1f} GB/s\n")
    print(f"{'':50}" + "".join(f"{name:>14}" for name in medians) + "".join(f"{'ratio':>14}" for _ in ratios))
    for figure, label in FIGURES.items():
        row = f"{label:50}" + "".join(f"{m[figure]:14.1f}" for m in medians.values())
        print(row + "".join(f"{ratio[figure]:14.2f}" for ratio in ratios.values()))
    print(f"{'decode bytes a second / memory bandwidth':50}" + "".join(f"{s:14.0%}" for s in share.values()))
    agreed = (agreements[name]["top1"] for name in medians)
    print(
        f"{f'agreement with float32 over {agreement.POSITIONS} positions':50}" + "".join(f"{a:14.1%}" for a in agreed)
    )
    result = {
        "made": made,
        "model": Path(args.model).name,
        "model_bytes": size,
        "peer": peer and f"llama-cpp-python {peer}",
        "read_gb_s": bandwidths,
        "rounds": rounds,
        "medians": medians,
        "bandwidth_share": share,
        "ratios": ratios,
        "agreement": agreements,
    }
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
