"""Two builds of the package against each other, such as before and after a change.

    python bench/bench_builds.py MODEL OLD NEW [--pairs 10] [--threads N] [--option activation_bits=8]

OLD and NEW are directories that hold a package `nanovllm` with its extension. A process of each loads the model once,
and the two measure in turn, so that a ratio compares figures of the same minute. Prints the median of each build and
the median, the smallest and the largest ratio of a pair, then one line of JSON.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from workload import PREFILL_TOKENS, prompt

FIGURES = {
    "decode": "decode, batch 1 (tok/s)",
    "prefill": f"prefill, {PREFILL_TOKENS} tokens (tok/s)",
    "batch": "32 sequences, 16 in and 16 out (output tok/s)",
}
DECODE_TOKENS = 64
BATCH, BATCH_IN, BATCH_OUT = 32, 16, 16
REPEATS = 2
"""Of a short measurement the fastest counts: what slows it down is the machine's."""


def measure(model: str, options: dict[str, Any]) -> None:
    """Loads the model and measures once for each line on standard input: a line of JSON each."""
    from nanovllm import LLM, SamplingParams

    llm = LLM(model, max_model_len=2048, max_num_seqs=BATCH, **options)
    vocab, seed = llm.tokenizer.vocab_size, 0

    def generate(count: int, tokens: int, output: int) -> float:
        nonlocal seed
        seed += count  # new prompts each time: nothing is found in the prefix cache
        prompts = [prompt(tokens, vocab, seed=seed + i) for i in range(count)]
        params = SamplingParams(temperature=0.6, max_tokens=output, ignore_eos=True)
        start = perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        return perf_counter() - start

    def fastest(*workload: int) -> float:
        return min(generate(*workload) for _ in range(REPEATS))

    generate(1, 64, 8)
    for _ in sys.stdin:
        # A prompt with and without more tokens: the difference is decoding alone.
        decode = fastest(1, 16, 1 + DECODE_TOKENS) - fastest(1, 16, 1)
        prefill = fastest(1, PREFILL_TOKENS, 1)
        batch = generate(BATCH, BATCH_IN, BATCH_OUT)
        figures = {
            "decode": DECODE_TOKENS / decode,
            "prefill": PREFILL_TOKENS / prefill,
            "batch": BATCH * BATCH_OUT / batch,
        }
        print(json.dumps(figures), flush=True)


def start(build: str, model: str, options: dict[str, Any]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", __file__, model, "--measure", json.dumps(options)]
    path = os.pathsep.join([str(Path(build).resolve()), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(worker: "subprocess.Popen[str]") -> dict[str, float]:
    if worker.stdin is None or worker.stdout is None:
        raise RuntimeError("a worker without pipes")
    worker.stdin.write("\n")
    worker.stdin.flush()
    figures: dict[str, float] = json.loads(worker.stdout.readline())
    return figures


def option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, int(value) if value.isdigit() else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("builds", nargs="*", metavar="OLD NEW")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--option", type=option, action="append", default=[], help="an option of LLM, NAME=VALUE")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        measure(args.model, json.loads(args.measure))
        return
    if len(args.builds) != 2:
        parser.error("name two builds: the directories that hold their package nanovllm")
    options = {"num_threads": args.threads, **dict(args.option)}
    workers = [start(build, args.model, options) for build in args.builds]
    pairs = []
    for i in range(args.pairs + 1):
        order = workers if i % 2 == 0 else workers[::-1]  # whoever comes second finds the machine as the first left it
        measured = {id(worker): ask(worker) for worker in order}
        if i > 0:  # the first is a warm-up
            pairs.append([measured[id(worker)] for worker in workers])
    for worker in workers:
        worker.communicate()

    print(f"{Path(args.model).name}, {options}, {args.pairs} pairs")
    print(f"{'':50}{'old':>10}{'new':>10}{'new/old':>10}{'min':>8}{'max':>8}")
    result = {}
    for figure, label in FIGURES.items():
        old, new = (median(pair[i][figure] for pair in pairs) for i in range(2))
        ratios = sorted(pair[1][figure] / pair[0][figure] for pair in pairs)
        result[figure] = {"old": old, "new": new, "ratio": median(ratios), "min": ratios[0], "max": ratios[-1]}
        print(f"{label:50}{old:10.1f}{new:10.1f}{median(ratios):10.3f}{ratios[0]:8.3f}{ratios[-1]:8.3f}")
    print(json.dumps({"model": Path(args.model).name, "options": options, "pairs": args.pairs, "figures": result}))


if __name__ == "__main__":
    main()
