"""Our quantiser beside llama.cpp's, judged by llama.cpp: perplexity of both programs' files on the same text.

    python bench/perplexity.py MODEL.gguf --llama-bin DIR [--types Q4_K_M,Q8_0] [--text FILE | --no-text]

DIR holds `llama-quantize` and `llama-perplexity`. Prints the perplexities, their ratio, how many tensors have the same
type and how many the same bytes, then one line of JSON. Without a text only types and bytes are compared.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from nanovllm import _core

TEXT = Path(__file__).parent.parent / "tests" / "golden" / "public_domain.txt"
# Every mix but MXFP4, which llama.cpp makes for experts only.
TYPES = [
    "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL",
    "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "TQ2_0", "TQ1_0",
]  # fmt: skip


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def perplexity(llama_bin: Path, model: Path, text: Path, threads: int) -> float:
    output = run(llama_bin / "llama-perplexity", "-m", model, "-f", text, "-c", "256", "-t", str(threads))
    found = re.search(r"Final estimate: PPL = ([\d.]+)", output)
    if found is None:
        raise SystemExit(f"no perplexity in:\n{output[-2000:]}")
    return float(found[1])


def compare(ours: Path, theirs: Path) -> tuple[int, int, int]:
    """How many tensors there are, how many have the same type, and how many of these the same bytes."""
    a, b = _core.GgufFile(ours), _core.GgufFile(theirs)
    types = [{name: info.dtype for name, info in file.tensors.items()} for file in (a, b)]
    same_type = [name for name, dtype in types[0].items() if types[1].get(name) == dtype]
    same_bytes = [name for name in same_type if np.array_equal(a.raw(name), b.raw(name))]
    return len(types[0]), len(same_type), len(same_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-bin", type=Path, required=True)
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--no-text", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    print(f"{'type':8}{'ours':>10}{'llama.cpp':>11}{'ratio':>9}{'tensors':>9}{'same type':>11}{'same bytes':>12}")
    with tempfile.TemporaryDirectory() as directory:
        ours, theirs = Path(directory) / "ours.gguf", Path(directory) / "theirs.gguf"
        for name in args.types.split(","):
            run(sys.executable, "-m", "nanovllm", "quantize", args.model, ours, "--type", name, "--force")
            run(args.llama_bin / "llama-quantize", "--allow-requantize", args.model, theirs, name, str(args.threads))
            tensors, same_type, same_bytes = compare(ours, theirs)
            rows[name] = {"tensors": tensors, "same_type": same_type, "same_bytes": same_bytes}
            judged = " " * 30
            if not args.no_text:
                first, second = (perplexity(args.llama_bin, file, args.text, args.threads) for file in (ours, theirs))
                rows[name] |= {"ours": first, "llama.cpp": second, "ratio": first / second}
                judged = f"{first:10.4f}{second:11.4f}{first / second:9.5f}"
            print(f"{name:8}{judged}{tensors:9}{same_type:11}{same_bytes:12}", flush=True)
    print(json.dumps({"model": args.model.name, "text": args.text.name, "types": rows}))


if __name__ == "__main__":
    main()
