"""Streams beside `generate`: the same requests as 32 asynchronous streams of one engine, in alternating pairs.

    python bench/bench_streams.py MODEL [--streams 32] [--tokens 64] [--pairs 10] [--threads N] [--json FILE]

Prints output tokens a second of both, the median ratio of a pair, and how long the streams waited for their first
token.
"""

import argparse
import asyncio
import json
import os
from pathlib import Path
from statistics import median
from time import perf_counter

from provenance import provenance, sentence
from workload import prompt

from nanovllm import AsyncLLM, RequestOutputKind, SamplingParams

PROMPT = 32


async def streamed(llm: AsyncLLM, prompts: list[list[int]], params: SamplingParams) -> tuple[float, float]:
    """Seconds until all streams have ended, and until the median one's first token."""
    start = perf_counter()
    firsts: list[float] = []

    async def read(tokens: list[int]) -> None:
        count = 0
        async for output in llm.generate(tokens, params):
            if count == 0:
                firsts.append(perf_counter() - start)
            count += len(output.token_ids)
        if count != params.max_tokens:
            raise RuntimeError("an answer is shorter than asked for")

    await asyncio.gather(*(read(tokens) for tokens in prompts))
    return perf_counter() - start, median(firsts)


async def measure(llm: AsyncLLM, streams: int, tokens: int, pairs: int) -> dict[str, list[float]]:
    """Tokens a second of each pair, and seconds to the first token."""
    params = SamplingParams(
        temperature=0.6, seed=1, max_tokens=tokens, ignore_eos=True, output_kind=RequestOutputKind.DELTA
    )
    vocab = llm.tokenizer.vocab_size
    figures: dict[str, list[float]] = {"generate": [], "streams": [], "first_token": []}
    for i in range(pairs + 1):
        prompts = [prompt(PROMPT, vocab, seed=100 * i + j) for j in range(streams)]
        start = perf_counter()
        llm._llm.generate(prompts, params, use_tqdm=False)
        whole = perf_counter() - start
        prompts = [prompt(PROMPT, vocab, seed=100 * i + j + 50) for j in range(streams)]
        took, first = await streamed(llm, prompts, params)
        if i > 0:  # the first is a warm-up
            figures["generate"].append(streams * tokens / whole)
            figures["streams"].append(streams * tokens / took)
            figures["first_token"].append(first)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="where to write what the last line has")
    args = parser.parse_args()
    with AsyncLLM(args.model, num_threads=args.threads, max_model_len=1024) as llm:
        figures = asyncio.run(measure(llm, args.streams, args.tokens, args.pairs))
    ratio = median(s / g for s, g in zip(figures["streams"], figures["generate"], strict=True))
    result = {"made": provenance(args.threads, args.pairs), "streams": args.streams, "figures": figures, "ratio": ratio}
    print(f"{sentence(result['made'])}; {args.streams} streams of {args.tokens} tokens\n")
    print(f"generate: {median(figures['generate']):.0f} output tokens a second")
    print(f"streams:  {median(figures['streams']):.0f}, ratio of a pair {ratio:.3f}")
    print(f"first token of the median stream after {1000 * median(figures['first_token']):.0f} ms")
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
