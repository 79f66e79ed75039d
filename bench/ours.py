"""One round of our engine, in a process of its own: prints a line of JSON."""

import json
import sys
from dataclasses import asdict
from time import perf_counter

from workload import DECODE_TOKENS, PREFILL_TOKENS, Measured, peak_memory_mb, prompt, workload

from nanovllm import LLM, SamplingParams


def generate(llm: LLM, requests: list[tuple[list[int], int]]) -> float:
    """Seconds to answer `requests`."""
    params = [SamplingParams(temperature=0.6, max_tokens=n, ignore_eos=True) for _, n in requests]
    start = perf_counter()
    outputs = llm.generate([tokens for tokens, _ in requests], params, use_tqdm=False)
    seconds = perf_counter() - start
    if [len(output["token_ids"]) for output in outputs] != [n for _, n in requests]:
        raise RuntimeError("an answer is shorter than asked for")
    return seconds


def main(model: str, threads: int, activation_bits: int) -> None:
    llm = LLM(model, num_threads=threads, max_model_len=2048, activation_bits=activation_bits)
    vocab = llm.tokenizer.vocab_size
    generate(llm, [(prompt(64, vocab, seed=1000), 8)])
    prefill = min(generate(llm, [(prompt(PREFILL_TOKENS, vocab, seed=2000 + i), 1)]) for i in range(3))
    # The same prompt with and without more tokens: the difference is decoding alone.
    short, long = (prompt(16, vocab, seed=3000), 1), (prompt(16, vocab, seed=3000), 1 + DECODE_TOKENS)
    decode = min(generate(llm, [long]) - generate(llm, [short]) for _ in range(3))
    requests = workload(vocab)
    total = generate(llm, requests)
    measured = Measured(
        decode_tok_s=DECODE_TOKENS / decode,
        prefill_tok_s=PREFILL_TOKENS / prefill,
        workload_tok_s=sum(n for _, n in requests) / total,
        peak_memory_mb=peak_memory_mb(),
    )
    print(json.dumps(asdict(measured) | {"description": llm.description}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
