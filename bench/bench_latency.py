"""What callers wait for under load: requests that arrive at random, under the mixed policy and the default one.

    python bench/bench_latency.py MODEL [--requests 40] [--loads 50,80,100] [--threads N] [--json FILE]

Prompts have 100 to 2,000 tokens, answers 50 to 300, uniformly. Capacity is what the default policy answers a second if
all requests are there at once. Then they arrive as a Poisson process at shares of it, the same ones at the same times
under both policies, and their readers note when tokens come. Of each: the time to the first token and between tokens
(median, p95, p99 and the longest, in milliseconds), the mean number of sequences that run, what a decode step of as
many takes by itself, and output tokens a second.
"""

import argparse
import asyncio
import json
import os
from pathlib import Path
from random import Random
from statistics import mean, median
from time import perf_counter
from typing import Any

from provenance import provenance, sentence
from workload import prompt

from nanovllm import LLM, AsyncLLM, RequestOutputKind, SamplingParams

PROMPT, ANSWER = (100, 2000), (50, 300)
POLICIES = ("mixed", "default")
OPTIONS: dict[str, Any] = {"max_model_len": 2400}
STEPS = 24


def requests(count: int, vocab: int) -> list[tuple[list[int], int]]:
    """Prompts and output lengths, from seed 0."""
    random = Random(0)
    return [(prompt(random.randint(*PROMPT), vocab, seed=i), random.randint(*ANSWER)) for i in range(count)]


async def arrive(llm: AsyncLLM, work: list[tuple[list[int], int]], rate: float | None) -> dict[str, Any]:
    """Has requests come, `rate` a second (all at once without), and notes when their tokens do."""
    random = Random(1)
    firsts: list[float] = []
    between: list[float] = []
    running: list[int] = []

    async def read(tokens: list[int], length: int) -> None:
        params = SamplingParams(
            temperature=0.8, seed=1, max_tokens=length, ignore_eos=True, output_kind=RequestOutputKind.DELTA
        )
        last = perf_counter()
        is_first = True
        async for output in llm.generate(tokens, params):
            now = perf_counter()
            if is_first:
                firsts.append(now - last)
            elif output.token_ids:
                between.extend([(now - last) / len(output.token_ids)] * len(output.token_ids))
            last, is_first = now, False

    async def watch() -> None:
        while True:
            running.append(llm.metrics().num_running)
            await asyncio.sleep(0.05)

    watcher = asyncio.create_task(watch())
    start = perf_counter()
    tasks = []
    for tokens, length in work:
        tasks.append(asyncio.create_task(read(tokens, length)))
        await asyncio.sleep(random.expovariate(rate) if rate else 0)
    await asyncio.gather(*tasks)
    took = perf_counter() - start
    watcher.cancel()
    return {
        "seconds": took,
        "output_tok_s": sum(length for _, length in work) / took,
        "first": percentiles(firsts),
        "between": percentiles(between),
        "running": mean(running),
    }


def percentiles(values: list[float]) -> list[float]:
    """Median, p95, p99 and the largest, in milliseconds."""
    ordered = sorted(values)
    return [1000 * ordered[min(int(q * len(ordered)), len(ordered) - 1)] for q in (0.5, 0.95, 0.99, 1)]


def decode_step_ms(llm: LLM, batch: int, vocab: int) -> float:
    """A decode step of so many sequences of the middling length: what more tokens take, over their number."""
    middle = (PROMPT[0] + PROMPT[1] + ANSWER[1]) // 2
    took = []
    for length in (1, 1 + STEPS):
        params = SamplingParams(temperature=0.8, seed=1, max_tokens=length, ignore_eos=True)
        prompts = [prompt(middle, vocab, seed=500 + i) for i in range(batch)]
        start = perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        took.append(perf_counter() - start)
    return 1000 * (took[1] - took[0]) / STEPS


def run(model: str, policy: str, threads: int, work: list[tuple[list[int], int]], rate: float | None) -> dict[str, Any]:
    """One policy under one load, in an engine of its own."""

    async def main() -> dict[str, Any]:
        async with AsyncLLM(model, scheduling_policy=policy, num_threads=threads, **OPTIONS) as llm:
            return await arrive(llm, work, rate)

    return asyncio.run(main())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--loads", default="50,80,100", help="percent of capacity")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="where to write what the last line has")
    args = parser.parse_args()
    with LLM(args.model, num_threads=args.threads, **OPTIONS) as llm:
        vocab = llm.tokenizer.vocab_size
    work = requests(args.requests, vocab)
    saturated = {policy: run(args.model, policy, args.threads, work, None) for policy in POLICIES}
    capacity = args.requests / saturated["default"]["seconds"]
    loads = {
        load: {policy: run(args.model, policy, args.threads, work, capacity * int(load) / 100) for policy in POLICIES}
        for load in args.loads.split(",")
    }
    with LLM(args.model, num_threads=args.threads, **OPTIONS) as llm:
        for of in loads.values():
            for result in of.values():
                batch = max(round(result["running"]), 1)
                result["decode_step_ms"] = median(decode_step_ms(llm, batch, vocab) for _ in range(3))
    result = {"made": provenance(args.threads, 1), "requests": args.requests, "capacity": capacity}
    result |= {"saturated": saturated, "loads": loads}
    print(f"{sentence(result['made'])}; {args.requests} requests, {capacity:.2f} a second at saturation\n")
    ratio = saturated["mixed"]["output_tok_s"] / saturated["default"]["output_tok_s"]
    print(f"saturated: {saturated['default']['output_tok_s']:.0f} output tokens a second, mixed {ratio:.2f} of it")
    for load, of in loads.items():
        for policy, at in of.items():
            steps = at["between"][2] / at["decode_step_ms"]
            first, between = (" ".join(f"{ms:7.0f}" for ms in at[name]) for name in ("first", "between"))
            print(
                f"{load:>4}% {policy:8} first {first}  between {between}  {at['output_tok_s']:5.0f} tok/s, "
                f"{at['running']:4.1f} run, a step {at['decode_step_ms']:5.1f} ms, p99 is {steps:.1f} steps"
            )
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
