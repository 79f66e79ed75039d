"""Mixtures of experts beside llama.cpp and ik_llama.cpp: random models of real widths, with fewer layers.

    python bench/bench_experts.py --peer llama.cpp=DIR [--peer ik_llama.cpp=DIR] [--shape NAME] [--type T] [--json FILE]
    python bench/bench_experts.py --in-file

With `--in-file` one of the peers is our engine with experts that stay in their file, which the system has cached.

DIR holds the peer's `llama-batched-bench`, built for this machine; where it gives every sequence the same token, as
ik_llama.cpp's does, all go through the same experts, and it has to be changed to draw tokens. Each round runs our
engine with 16 and with 8-bit activations and each peer in turn, and a ratio compares figures of one round. Prints a
table, then one line of JSON with every round; `--json` writes it to a file, from which table.py makes the table of
docs/experts.md.

Beside the tokens a second stands the share of the memory's bandwidth, measured in the same round, that reading the
weights of the chosen experts once a step comes to.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from expert_speed import BATCHES, STEPS
from provenance import provenance, sentence
from random_model import SHAPES, write
from workload import PREFILL_TOKENS

HERE = Path(__file__).parent
FIGURES = [*(f"batch {batch}" for batch in BATCHES), "prefill"]
IN_FILE = "experts in the file"
ENGINES = {"16": "nanovllm-rs", "8": "`activation_bits=8`"}


def ours(model: Path, shape: str, threads: int, bits: int, *more: str) -> dict[str, float]:
    command = [sys.executable, str(HERE / "expert_speed.py"), str(model), shape, str(threads), str(bits), *more]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def bandwidth(model: Path, threads: int) -> float:
    """Bytes a second that this machine reads just now."""
    command = [sys.executable, "-m", "nanovllm", "info", str(model), "--json", "--threads", str(threads)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(json.loads(output)["speed"]["bandwidth"]["bytes_per_second"])


def peer(folder: Path, model: Path, threads: int) -> dict[str, float]:
    """Tokens a second of a peer's `llama-batched-bench`."""
    tool = [str(folder / "llama-batched-bench"), "-m", str(model), "-c", "4096", "-b", "512", "-ub", "512"]
    tool += ["-t", str(threads), "-tb", str(threads)]
    figures = {}
    for prompts, tokens, batches in ((16, STEPS, BATCHES), (PREFILL_TOKENS, 1, (1,))):
        command = [*tool, "-npp", str(prompts), "-ntg", str(tokens), "-npl", ",".join(map(str, batches))]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        # Columns: prompt, answer, batch, cache, then seconds and tokens a second of the prompts, and of the answers.
        rows = [[float(cell) for cell in line.split("|")[1:-1]] for line in run.stdout.splitlines() if is_row(line)]
        if prompts == PREFILL_TOKENS:
            figures["prefill"] = rows[0][5]
        else:
            figures |= {f"batch {int(row[2])}": row[7] for row in rows}
    return figures


def is_row(line: str) -> bool:
    return re.fullmatch(r"\|(\s*[\d.]+\s*\|)+", line.strip()) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--in-file", action="store_true", help="compare with experts that stay in their file")
    parser.add_argument("--shape", choices=[name for name, s in SHAPES.items() if s.experts], default="qwen3-30b-a3b")
    parser.add_argument("--type", default="Q4_0", help="of the experts")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write what the last line has")
    args = parser.parse_args()
    if not args.peer and not args.in_file:
        parser.error("there is nothing to compare with: give --peer or --in-file")
    folders = {name: Path(folder) for name, _, folder in (peer.partition("=") for peer in args.peer)}
    peers = [*folders, *([IN_FILE] if args.in_file else [])]
    layers = args.layers or SHAPES[args.shape].layers

    rounds: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model.gguf"
        write(args.type, model, layers, SHAPES[args.shape])
        for _ in range(args.rounds):
            this = {bits: ours(model, args.shape, args.threads, int(bits)) for bits in ENGINES}
            for bits, figures in this.items():
                speed = bandwidth(model, args.threads)
                for batch in BATCHES:
                    a_second = figures[f"bytes {batch}"] * figures[f"batch {batch}"] / batch
                    this[bits][f"bandwidth {batch}"] = a_second / speed
            this |= {name: peer(folder, model, args.threads) for name, folder in folders.items()}
            if args.in_file:
                this[IN_FILE] = ours(model, args.shape, args.threads, 16, "--in-file")
            rounds.append(this)
            print(json.dumps(rounds[-1]), file=sys.stderr)

    engines = list(rounds[0])
    medians = {e: {f: median(r[e][f] for r in rounds) for f in rounds[0][e]} for e in engines}
    ratios = {
        bits: {name: {f: median(r[bits][f] / r[name][f] for r in rounds) for f in FIGURES} for name in peers}
        for bits in ENGINES
    }
    made = provenance(args.threads, args.rounds)
    print(f"{sentence(made)}; {args.shape}, {layers} layers, {args.type}\n")
    print(f"{'tokens a second':16}" + "".join(f"{ENGINES.get(e, e):>22}" for e in engines))
    for figure in FIGURES:
        print(f"{figure:16}" + "".join(f"{medians[e][figure]:22.1f}" for e in engines))
    for bits, label in ENGINES.items():
        for name in peers:
            listed = ", ".join(f"{figure} {ratio:.2f}" for figure, ratio in ratios[bits][name].items())
            print(f"{label} over {name}: {listed}")
        shares = ", ".join(f"batch {b} {medians[bits][f'bandwidth {b}']:.0%}" for b in BATCHES)
        print(f"{label}, share of the memory's bandwidth: {shares}")
    result = {
        "made": made,
        "shape": args.shape,
        "layers": layers,
        "experts": args.type,
        "medians": medians,
        "expert_ratios": ratios,
        "rounds": rounds,
    }
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
