"""One round of our engine on a random mixture of experts, in a process of its own: prints a line of JSON.

    python bench/expert_speed.py MODEL.gguf SHAPE THREADS ACTIVATION_BITS [--in-file]

With `--in-file` experts stay in the file. Of each batch it prints tokens a second and the bytes of weights that a step
touches. These follow from the routes: layers of the random models add next to nothing to the stream
(`random_model.py`), so that a token's experts are those whose rows of the router are nearest to its embedding.
"""

import json
import sys
from time import perf_counter

import gguf
import numpy as np
from ours import generate
from random_model import SHAPES, Shape
from workload import PREFILL_TOKENS, prompt

from nanovllm import LLM, SamplingParams

BATCHES = (1, 8, 32)
STEPS = 16


def sizes(reader: gguf.GGUFReader, shape: Shape) -> tuple[int, int]:
    """Bytes that every step reads, all but experts and an untied embedding, and those of one expert of a layer."""
    experts = sum(t.n_bytes for t in reader.tensors if "_exps.weight" in t.name)
    skipped = 0 if shape.tied else sum(t.n_bytes for t in reader.tensors if t.name == "token_embd.weight")
    layers = sum(t.name.endswith("ffn_up_exps.weight") for t in reader.tensors)
    return int(sum(t.n_bytes for t in reader.tensors) - experts - skipped), int(experts) // layers // shape.experts


def chosen(reader: gguf.GGUFReader, shape: Shape, tokens: np.ndarray) -> np.ndarray:
    """The experts of each token in each layer, `[layers, tokens, experts a token]`."""
    tensors = {t.name: t for t in reader.tensors}
    embedding = tensors["token_embd.weight"]
    rows = gguf.quants.dequantize(np.ascontiguousarray(embedding.data[tokens]), embedding.tensor_type)
    normed = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True))
    routers = [t.data for name, t in tensors.items() if name.endswith("ffn_gate_inp.weight")]
    return np.stack([np.argsort(-(normed @ router.T), axis=1)[:, : shape.experts_per_token] for router in routers])


def step_bytes(reader: gguf.GGUFReader, shape: Shape, tokens: np.ndarray) -> float:
    """The mean over steps of the bytes of weights that a step touches, which is given `tokens[:, step]`."""
    every, expert = sizes(reader, shape)
    routes = chosen(reader, shape, tokens.ravel()).reshape(-1, *tokens.shape, shape.experts_per_token)
    distinct = [len(np.unique(layer[:, step])) for layer in routes for step in range(tokens.shape[1])]
    return every + expert * float(np.sum(distinct)) / tokens.shape[1]


def answers(llm: LLM, prompts: list[list[int]], length: int) -> tuple[float, list[list[int]]]:
    """Seconds to answer with so many tokens, and the answers."""
    params = [SamplingParams(temperature=0.6, max_tokens=length, ignore_eos=True, seed=i) for i in range(len(prompts))]
    start = perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    return perf_counter() - start, [output["token_ids"] for output in outputs]


def main(model: str, shape: Shape, threads: int, activation_bits: int, in_file: bool) -> None:
    llm = LLM(
        model,
        num_threads=threads,
        max_model_len=1024,
        activation_bits=activation_bits,
        num_kvcache_blocks=64,
        gpu_memory_utilization=1e-12 if in_file else 0.9,  # no expert fits in so little
    )
    vocab = llm.tokenizer.vocab_size
    generate(llm, [(prompt(32, vocab, seed=1000), 4)])
    prefill = min(generate(llm, [(prompt(PREFILL_TOKENS, vocab, seed=2000 + i), 1)]) for i in range(2))
    figures: dict[str, float] = {"prefill": PREFILL_TOKENS / prefill}
    reader = gguf.GGUFReader(model)
    for batch in BATCHES:
        prompts = [prompt(16, vocab, seed=3000 + i) for i in range(batch)]
        # The same prompts with and without more tokens: the difference is decoding alone.
        seconds, tokens = min(answers(llm, prompts, 1 + STEPS) for _ in range(2))
        decode = seconds - min(answers(llm, prompts, 1) for _ in range(2))[0]
        figures[f"batch {batch}"] = batch * STEPS / decode
        figures[f"bytes {batch}"] = step_bytes(reader, shape, np.array(tokens)[:, :-1])
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], SHAPES[sys.argv[2]], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:] == ["--in-file"])
