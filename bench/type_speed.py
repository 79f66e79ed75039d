"""One round of our engine on one model, in a process of its own: batch 1 and prefill 512, as a line of JSON."""

import json
import sys

from ours import generate
from workload import PREFILL_TOKENS, prompt

from nanovllm import LLM

DECODE_TOKENS = 48


def main(model: str, threads: int, activation_bits: int) -> None:
    llm = LLM(model, num_threads=threads, max_model_len=1024, activation_bits=activation_bits, num_kvcache_blocks=8)
    vocab = llm.tokenizer.vocab_size
    generate(llm, [(prompt(32, vocab, seed=1000), 4)])
    prefill = min(generate(llm, [(prompt(PREFILL_TOKENS, vocab, seed=2000 + i), 1)]) for i in range(2))
    # The same prompt with and without more tokens: the difference is decoding alone.
    short, long = (prompt(16, vocab, seed=3000), 1), (prompt(16, vocab, seed=3000), 1 + DECODE_TOKENS)
    decode = min(generate(llm, [long]) - generate(llm, [short]) for _ in range(2))
    print(json.dumps({"decode": DECODE_TOKENS / decode, "prefill": PREFILL_TOKENS / prefill}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
