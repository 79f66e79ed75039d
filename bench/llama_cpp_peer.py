"""One round of llama.cpp through llama-cpp-python, in a process of its own: prints a line of JSON.

    python bench/llama_cpp_peer.py MODEL.gguf THREADS [--logits FILE.npy]

With `--logits` it measures nothing: it reads a JSON list of token ids from standard input and writes the logits after
each, `[n, vocab]`.

The workload runs as llama.cpp's server runs it: all sequences in one context, prompts in batches of 512, then every
running sequence decoded in one batch.
"""

import ctypes
import json
import sys
from dataclasses import asdict
from time import perf_counter

import llama_cpp
import numpy as np
from workload import DECODE_TOKENS, NUM_SEQS, PREFILL_TOKENS, Measured, peak_memory_mb, prompt, workload

BATCH = 512


class Context:
    """A model and a context for `NUM_SEQS` sequences."""

    def __init__(self, path: str, threads: int) -> None:
        llama_cpp.llama_log_set(_SILENT, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = NUM_SEQS * 1024, BATCH, BATCH, NUM_SEQS
        params.n_threads = params.n_threads_batch = threads
        if hasattr(params, "kv_unified"):
            params.kv_unified = False  # else every sequence's attention scans the cells of all
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(vocab)
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def decode(self, rows: list[tuple[int, int, int, bool]]) -> dict[int, int]:
        """Runs rows of (token, position, sequence, wants logits); the arg-max token of each sequence that wants one."""
        for i, (token, position, sequence, wants) in enumerate(rows):
            self.batch.token[i], self.batch.pos[i] = token, position
            self.batch.n_seq_id[i], self.batch.seq_id[i][0], self.batch.logits[i] = 1, sequence, wants
        self.batch.n_tokens = len(rows)
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            raise RuntimeError("llama_decode failed")
        chosen = {}
        for i, (_, _, sequence, wants) in enumerate(rows):
            if wants:
                logits = llama_cpp.llama_get_logits_ith(self.context, i)
                chosen[sequence] = int(np.ctypeslib.as_array(logits, (self.vocab_size,)).argmax())
        return chosen

    def logits(self, tokens: list[int]) -> np.ndarray:
        """Logits after each token of one sequence, `[n, vocab]`."""
        self.clear()
        rows = []
        for start in range(0, len(tokens), BATCH):
            part = tokens[start : start + BATCH]
            self.decode([(token, start + i, 0, True) for i, token in enumerate(part)])
            given = (llama_cpp.llama_get_logits_ith(self.context, i) for i in range(len(part)))
            rows += [np.ctypeslib.as_array(logits, (self.vocab_size,)).copy() for logits in given]
        return np.stack(rows)

    def clear(self) -> None:
        """Empties the KV cache."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def generate(self, requests: list[tuple[list[int], int]]) -> float:
        """Seconds to answer `requests`, each a sequence of its own."""
        self.clear()
        start = perf_counter()
        rows = [
            (token, position, sequence, position == len(tokens) - 1)
            for sequence, (tokens, _) in enumerate(requests)
            for position, token in enumerate(tokens)
        ]
        last: dict[int, int] = {}
        for i in range(0, len(rows), BATCH):
            last |= self.decode(rows[i : i + BATCH])
        done = 1
        while running := [s for s, (_, n) in enumerate(requests) if n > done]:
            last |= self.decode([(last[s], len(requests[s][0]) + done - 1, s, True) for s in running])
            done += 1
        return perf_counter() - start


@llama_cpp.llama_log_callback
def _SILENT(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:  # noqa: N802
    pass


def main(model: str, threads: int) -> None:
    context = Context(model, threads)
    vocab = context.vocab_size
    context.generate([(prompt(64, vocab, seed=1000), 8)])
    prefill = min(context.generate([(prompt(PREFILL_TOKENS, vocab, seed=2000 + i), 1)]) for i in range(3))
    tokens = prompt(16, vocab, seed=3000)
    decode = min(context.generate([(tokens, 1 + DECODE_TOKENS)]) - context.generate([(tokens, 1)]) for _ in range(3))
    requests = workload(vocab)
    total = context.generate(requests)
    measured = Measured(
        decode_tok_s=DECODE_TOKENS / decode,
        prefill_tok_s=PREFILL_TOKENS / prefill,
        workload_tok_s=sum(n for _, n in requests) / total,
        peak_memory_mb=peak_memory_mb(),
    )
    print(json.dumps(asdict(measured) | {"description": f"llama-cpp-python {llama_cpp.__version__}"}))


if __name__ == "__main__":
    if sys.argv[3:4] == ["--logits"]:
        np.save(sys.argv[4], Context(sys.argv[1], int(sys.argv[2])).logits(json.load(sys.stdin)))
    else:
        main(sys.argv[1], int(sys.argv[2]))
