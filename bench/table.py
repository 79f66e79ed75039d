"""Makes the tables of README.md and docs/ of the figures in bench/results/.

    python bench/table.py            # prints every table
    python bench/table.py --write    # and puts each where its marker is

A table stands between `<!-- table: bench/results/NAME.json -->` and `<!-- end of table -->`. The file is what
`bench_cpu.py`, `bench_types.py` or `bench_experts.py` has written with `--json`; a test holds that the documents have
what comes of it.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from provenance import sentence

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "docs" / "quantisation.md",
    ROOT / "docs" / "experts.md",
    ROOT / "docs" / "sampling.md",
]
MARKED = re.compile(r"(<!-- table: (bench/results/[\w.-]+\.json) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)
ENGINES = {"nanovllm-rs": "nanovllm-rs", "8-bit act.": "`activation_bits=8`", "llama.cpp": "llama.cpp"}
FIGURES = {
    "decode_tok_s": "decode, batch 1 (tok/s)",
    "prefill_tok_s": "prefill, 512 tokens (tok/s)",
    "workload_tok_s": "32 sequences, 100 to 512 tokens in and out (output tok/s)",
    "peak_memory_mb": "peak memory (MB)",
}


def engines_table(result: dict[str, Any]) -> str:
    """The table of one model: what `bench_cpu.py` measured of each engine, and the ratios to llama.cpp in brackets."""
    medians, ratios, agreement = result["medians"], result["ratios"], result["agreement"]
    lines = [
        f"{sentence(result['made'])}; {result['model']}; {result['peer']}",
        "",
        f"| | {' | '.join(ENGINES[name] for name in medians)} |",
        "|---|" + "---:|" * len(medians),
    ]
    for figure, label in FIGURES.items():
        cells = []
        for name, figures in medians.items():
            ratio = ratios.get(name, {}).get(figure)
            cells.append(f"{figures[figure]:.0f}" + (f" ({ratio:.2f})" if ratio is not None else ""))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    agreed = " | ".join(f"{agreement[name]['top1']:.1%}" for name in medians)
    lines.append(f"| agreement with float32 (likeliest token, 500 positions) | {agreed} |")
    return "\n".join(lines) + "\n"


def types_table(result: dict[str, Any]) -> str:
    """The table of types: batch 1 and prefill with 16 and 8 bits, in brackets the ratios to llama.cpp, and its own."""
    layers = f"Qwen3-0.6B's shape in {result['layers']} layers"
    lines = [
        f"{sentence(result['made'])}; {layers}; {result['peer']}",
        "",
        "| type | batch 1 | 8-bit | llama.cpp | prefill 512 | 8-bit | llama.cpp |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for dtype, row in result["types"].items():
        speed, cells = row["speed"], []
        for figure in ("decode", "prefill"):
            cells += [f"{speed[bits][figure]:.0f} ({speed[f'ratio {bits}'][figure]:.2f})" for bits in ("16", "8")]
            cells.append(f"{speed['llama.cpp'][figure]:.0f}")
        lines.append(f"| {dtype} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def experts_table(result: dict[str, Any]) -> str:
    """The table of a mixture: tokens a second, ours with the ratio to each peer and the share of bandwidth."""
    medians, ratios = result["medians"], result["expert_ratios"]
    names = {"16": "nanovllm-rs", "8": "`activation_bits=8`"}
    lines = [
        f"{sentence(result['made'])}; {result['shape']} in {result['layers']} layers, experts in {result['experts']}",
        "",
        f"| tokens a second | {' | '.join(names.get(name, name) for name in medians)} | of the bandwidth |",
        "|---|" + "---:|" * (len(medians) + 1),
    ]
    for figure in ("batch 1", "batch 8", "batch 32", "prefill"):
        cells = []
        for name, figures in medians.items():
            beside = ", ".join(f"{ratio[figure]:.2f}" for ratio in ratios.get(name, {}).values())
            cells.append(f"{figures[figure]:.0f}" + (f" ({beside})" if beside else ""))
        share = medians["16"].get(figure.replace("batch", "bandwidth")) if figure != "prefill" else None
        cells.append("" if share is None else f"{share:.0%}")
        lines.append(f"| {figure.replace('prefill', 'prefill 512')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def sampling_table(result: dict[str, Any]) -> str:
    """The table of what sampling options cost: a plain draw, and what each adds to it, as shares of a step."""
    times, steps, shares = result["option_us"], result["step_us"], result["option_shares"]
    lines = [
        f"{sentence(result['made'])}; Qwen3-0.6B's shape in {result['type']}",
        "",
        f"| | {' | '.join(f'batch {batch}' for batch in times)} |",
        "|---|" + "---:|" * len(times),
        "| a decode step | " + " | ".join(f"{steps[batch] / 1000:.1f} ms" for batch in times) + " |",
        "| of it a plain draw | "
        + " | ".join(f"{of['plain'] / steps[batch]:.1%}" for batch, of in times.items())
        + " |",
    ]
    options = next(iter(shares.values()))
    lines += [f"| {name} adds | {' | '.join(f'{of[name]:.1%}' for of in shares.values())} |" for name in options]
    return "\n".join(lines) + "\n"


def table(path: Path) -> str:
    """The table of a file of figures, whichever script wrote it."""
    result = json.loads(path.read_text(encoding="utf-8"))
    if "option_shares" in result:
        return sampling_table(result)
    if "expert_ratios" in result:
        return experts_table(result)
    return types_table(result) if "types" in result else engines_table(result)


def filled(text: str) -> str:
    """A document's text with each marked table made anew."""
    return MARKED.sub(lambda found: found[1] + table(ROOT / found[2]) + found[4], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into the documents")
    args = parser.parse_args()
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for found in MARKED.finditer(text):
            print(f"{document.name}, {found[2]}:\n\n{table(ROOT / found[2])}")
        if args.write:
            document.write_text(filled(text), encoding="utf-8")


if __name__ == "__main__":
    main()
