"""nano-vLLM's benchmark: many prompts of random tokens, answered at once.

Usage: python bench/bench.py [MODEL] [--num-seqs N] [--max-input-len N] [--max-output-len N]
MODEL is a directory, a .gguf file or a Hugging Face id; without it, nano-vLLM's ~/huggingface/Qwen3-0.6B. The defaults
draw the very requests that its README reports: 256 prompts, 133,966 tokens to generate. That is long on a few cores;
`make bench` measures less, and llama.cpp beside it.
"""

import argparse
from pathlib import Path
from random import Random
from time import perf_counter

from nanovllm import LLM, SamplingParams

SHORTEST = 100
MAX_TOKEN_ID = 10_000


def requests(
    num_seqs: int, max_input_len: int, max_output_len: int, max_token_id: int = MAX_TOKEN_ID
) -> tuple[list[list[int]], list[int]]:
    """Prompts and the lengths of their answers, uniform between 100 and the longest, from seed 0."""
    random = Random(0)
    prompts = []
    for _ in range(num_seqs):
        length = random.randint(SHORTEST, max_input_len)
        prompts.append([random.randint(0, max_token_id) for _ in range(length)])
    return prompts, [random.randint(SHORTEST, max_output_len) for _ in range(num_seqs)]


def main() -> None:
    parser = argparse.ArgumentParser(description="nano-vLLM's benchmark")
    parser.add_argument("model", nargs="?", default=str(Path.home() / "huggingface" / "Qwen3-0.6B"))
    parser.add_argument("--num-seqs", type=int, default=256)
    parser.add_argument("--max-input-len", type=int, default=1024)
    parser.add_argument("--max-output-len", type=int, default=1024)
    args = parser.parse_args()

    llm = LLM(args.model, enforce_eager=False, max_model_len=4096)
    max_token_id = min(MAX_TOKEN_ID, llm.tokenizer.vocab_size - 1)
    prompts, lengths = requests(args.num_seqs, args.max_input_len, args.max_output_len, max_token_id)
    params = [SamplingParams(temperature=0.6, max_tokens=length, ignore_eos=True) for length in lengths]

    llm.generate(["Benchmark: "], SamplingParams(), use_tqdm=False)  # the first step of a process is slower
    start = perf_counter()
    llm.generate(prompts, params, use_tqdm=False)
    seconds = perf_counter() - start
    total = sum(lengths)
    print(f"Total: {total}tok, Time: {seconds:.2f}s, Throughput: {total / seconds:.2f}tok/s")


if __name__ == "__main__":
    main()
