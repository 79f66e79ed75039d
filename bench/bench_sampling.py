"""What each sampling option costs, as a share of a decode step of Qwen3-0.6B's shape with its vocabulary of 151,936.

    python bench/bench_sampling.py [--type Q4_0] [--batches 1,32] [--rounds 5] [--threads N] [--json FILE]

A process loads the model once and decodes with each option and without in turn; what is printed is the median of what
a round with it took more than the rounds without it right before and after. Weights are random, so that logits are
those of no language: they are spread as a trained model's by a temperature, and a nucleus is as large.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from provenance import provenance, sentence
from random_model import SHAPES, write
from workload import prompt

from nanovllm import LLM, SamplingParams

STEPS = 12
PROMPT = 16
VOCAB = SHAPES["qwen3-0.6b"].vocab
PENALTIES = {"presence_penalty": 0.5, "frequency_penalty": 0.5, "repetition_penalty": 1.2}
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "top_k=50": {"top_k": 50},
    "top_p=0.95": {"top_p": 0.95},
    "min_p=0.05": {"min_p": 0.05},
    "three penalties": PENALTIES,
    "logit_bias of 300": {"logit_bias": {i * 7: 0.5 for i in range(300)}},
    "half allowed": {"allowed_token_ids": list(range(0, VOCAB, 2))},
    "logprobs=5": {"logprobs": 5},
    "stop of 4": {"stop": ["###", "\n\n\n", "<|end", "User:"]},
    "all together": {
        "top_k": 50,
        "top_p": 0.95,
        "min_p": 0.01,
        "logprobs": 5,
        "logit_bias": {i * 7: 0.5 for i in range(300)},
        "stop": ["###", "\n\n\n"],
        **PENALTIES,
    },
}


def seconds(llm: LLM, batch: int, options: dict[str, Any]) -> float:
    """Of decoding alone: what more tokens take, over a step each."""
    took = []
    for length in (1, 1 + STEPS):
        settings = {"temperature": 0.2, "max_tokens": length, "ignore_eos": True} | options
        params = [SamplingParams(seed=i, **settings) for i in range(batch)]
        prompts = [prompt(PROMPT, VOCAB, seed=100 + i) for i in range(batch)]
        start = perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        took.append(perf_counter() - start)
    return (took[1] - took[0]) / STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", default="Q4_0")
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="where to write what the last line has")
    args = parser.parse_args()
    result: dict[str, Any] = {"made": provenance(args.threads, args.rounds), "type": args.type, "sampling": {}}
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model.gguf"
        write(args.type, model)
        with LLM(str(model), num_threads=args.threads, max_model_len=512, num_kvcache_blocks=64) as llm:
            for batch in map(int, args.batches.split(",")):
                seconds(llm, batch, {})
                plain = [seconds(llm, batch, {})]
                shares: dict[str, list[float]] = {name: [] for name in OPTIONS}
                for _ in range(args.rounds):
                    for name, options in OPTIONS.items():
                        took = seconds(llm, batch, options)
                        plain.append(seconds(llm, batch, {}))
                        shares[name].append(took / ((plain[-2] + plain[-1]) / 2) - 1)
                medians = {name: median(of) for name, of in shares.items()}
                result["sampling"][str(batch)] = {"step_ms": 1000 * median(plain), "shares": medians}
    print(f"{sentence(result['made'])}; Qwen3-0.6B's shape in {args.type}\n")
    batches = list(result["sampling"])
    print(f"{'of a decode step':20}" + "".join(f"{'batch ' + batch:>12}" for batch in batches))
    for name in OPTIONS:
        print(f"{name:20}" + "".join(f"{result['sampling'][batch]['shares'][name]:12.1%}" for batch in batches))
    for batch in batches:
        print(f"a step of batch {batch} takes {result['sampling'][batch]['step_ms']:.1f} ms")
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
