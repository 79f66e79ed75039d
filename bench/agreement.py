"""How often each engine's likeliest token is that of the same weights in float32.

    python bench/agreement.py MODEL.gguf [--threads N] [--peer-python PATH] [--positions 500]

The text is the beginning of `tests/golden/public_domain.txt`, teacher-forced. The oracle is `device="candle-f32"`; it
widens every weight to float32 and multiplies with candle's own code: it shares no kernel with what is measured. Prints,
for each engine, the share of positions with the same likeliest token and the mean divergence, then a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from provenance import peer_version

from nanovllm import LLM, _core
from nanovllm.config import Config

HERE = Path(__file__).parent
TEXT = HERE.parent / "tests" / "golden" / "public_domain.txt"
POSITIONS = 500


def logits(model: str, ids: list[int], **options: object) -> np.ndarray:
    """Logits after each of the ids, `[n, vocab]`, by our engine."""
    config = Config(model, max_num_seqs=1, num_kvcache_blocks=len(ids) // 256 + 1, **options)  # type: ignore[arg-type]
    return _core.ModelRunner(config).logits(ids)


def peer_logits(python: str, model: str, ids: list[int], threads: int) -> np.ndarray:
    """The same by llama.cpp."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "logits.npy"
        command = [python, str(HERE / "llama_cpp_peer.py"), model, str(threads), "--logits", str(path)]
        subprocess.run(command, check=True, input=json.dumps(ids), text=True, stdout=subprocess.DEVNULL)
        return np.load(path)


def compare(expected: np.ndarray, got: np.ndarray) -> dict[str, float]:
    """The share of rows with the same arg-max, and the mean Kullback-Leibler divergence from `expected` in nats."""
    a, b = (x.astype(np.float64) - x.max(axis=-1, keepdims=True) for x in (expected, got))
    p, q = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in (a, b))
    top1 = float((expected.argmax(axis=-1) == got.argmax(axis=-1)).mean())
    return {"top1": top1, "mean_kl": float((np.exp(p) * (p - q)).sum(axis=-1).mean())}


def measure(model: str, threads: int, peer_python: str, positions: int = POSITIONS) -> dict[str, dict[str, float]]:
    """The agreement of each engine, llama.cpp only where it is installed."""
    with LLM(model, num_kvcache_blocks=1, num_threads=threads) as llm:
        ids = llm.tokenizer.encode(TEXT.read_text(encoding="utf-8"))[:positions]
    oracle = logits(model, ids, device="candle-f32")
    found = {
        "nanovllm-rs": compare(oracle, logits(model, ids, num_threads=threads)),
        "8-bit act.": compare(oracle, logits(model, ids, num_threads=threads, activation_bits=8)),
    }
    if peer_version(peer_python):
        found["llama.cpp"] = compare(oracle, peer_logits(peer_python, model, ids, threads))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has llama-cpp-python")
    parser.add_argument("--positions", type=int, default=POSITIONS)
    args = parser.parse_args()
    found = measure(args.model, args.threads, args.peer_python, args.positions)
    for name, figures in found.items():
        print(f"{name:14}{figures['top1']:8.1%} of {args.positions} positions, divergence {figures['mean_kl']:.1e}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
