"""What each sampling option costs, as a share of a decode step of Qwen3-0.6B's shape with its vocabulary of 151,936.

    python bench/bench_sampling.py [--type Q4_0] [--batches 1,32] [--threads N] [--json FILE]

Times the choice of tokens by itself (`cargo run --example sampling`, on logits spread as a language model's), which
takes from thousandths to a few hundredths of a step, less than steps differ by; and a step, on a random model. A share
is what an option adds to a plain draw.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from provenance import provenance, sentence
from random_model import SHAPES, write
from workload import prompt

from nanovllm import LLM, SamplingParams

ROOT = Path(__file__).parent.parent
STEPS = 16
ROUNDS = 5


def option_times(batches: list[int], threads: int) -> dict[str, dict[str, float]]:
    """Microseconds of a call by batch and option."""
    command = ["cargo", "run", "--release", "--quiet", "-p", "nanovllm-cpu", "--example", "sampling", "--"]
    command += [f"rows={','.join(map(str, batches))}", f"threads={threads}"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
    return dict(json.loads(output.splitlines()[-1]))


def step_seconds(llm: LLM, batch: int) -> float:
    """A decode step: what more tokens take, over their number."""
    took = []
    for length in (1, 1 + STEPS):
        params = [SamplingParams(temperature=0.8, seed=i, max_tokens=length, ignore_eos=True) for i in range(batch)]
        prompts = [prompt(16, SHAPES["qwen3-0.6b"].vocab, seed=100 + i) for i in range(batch)]
        start = perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        took.append(perf_counter() - start)
    return (took[1] - took[0]) / STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", default="Q4_0")
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="where to write what the last line has")
    args = parser.parse_args()
    batches = [int(batch) for batch in args.batches.split(",")]
    times = option_times(batches, args.threads)
    steps = {}
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model.gguf"
        write(args.type, model)
        with LLM(str(model), num_threads=args.threads, max_model_len=512, num_kvcache_blocks=64) as llm:
            step_seconds(llm, 1)
            for batch in batches:
                steps[str(batch)] = 1e6 * median(step_seconds(llm, batch) for _ in range(ROUNDS))
    shares = {
        batch: {name: (time - of["plain"]) / steps[batch] for name, time in of.items() if name != "plain"}
        for batch, of in times.items()
    }
    result: dict[str, Any] = {"made": provenance(args.threads, ROUNDS), "type": args.type}
    result |= {"option_us": times, "step_us": steps, "option_shares": shares}
    print(f"{sentence(result['made'])}; Qwen3-0.6B's shape in {args.type}\n")
    print(f"{'share of a step':20}" + "".join(f"{'batch ' + batch:>12}" for batch in times))
    for name in next(iter(shares.values())):
        print(f"{name:20}" + "".join(f"{of[name]:12.1%}" for of in shares.values()))
    for batch, of in times.items():
        print(
            f"a step of batch {batch} takes {steps[batch] / 1000:.1f} ms, a plain draw {of['plain'] / 1000:.2f} of it"
        )
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
