"""Breaks one behaviour at a time and shows that its parity suite notices.

Usage: python tests/tools/mutations.py [WORDS ...]

The tracked files are copied to a temporary directory, where each mutation is made, built (Rust's dev profile, into
CARGO_TARGET_DIR or target/mutants) and undone. With arguments, only mutations whose description has one of the words
are tried. The exit status is 1 if one survives. Needs Linux, for the name of what cargo builds. That each mutation
still has its place in the sources is a test of its own, `tests/test_mutations.py`, which builds nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target" / "mutants"))
SECONDS = 600
"""A mutant may never come to an end; that counts as noticed."""
PASSED, FAILED = 0, 1
"""Exit statuses of pytest; any other means that the tests did not run."""


@dataclass(frozen=True)
class Mutation:
    """A change of one place in the sources, and the parity suite that is to fail because of it."""

    behaviour: str
    """What is wrong once the change is made."""
    folder: str
    """The sources below this folder have the old text just once: the file may move within it."""
    old: str
    new: str
    suite: str
    """NAME of `tests/parity/test_NAME.py`."""

    def place(self, root: Path) -> Path:
        """The file of a checkout at `root` that has the old text. Raises LookupError unless it is there just once."""
        sources = [path for path in sorted((root / self.folder).rglob("*")) if path.suffix in (".rs", ".py")]
        found = [path for path in sources for _ in range(path.read_text(encoding="utf-8").count(self.old))]
        if len(found) != 1:
            raise LookupError(f"{self.folder} has {len(found)} times, not once: {self.old}")
        return found[0]


ENGINE, CPU, PACKAGE = "rust/engine/src", "rust/cpu/src", "python/nanovllm"
MUTATIONS = (
    Mutation(
        "blocks return to the free list first to last",
        ENGINE,
        "while let Some(id) = seq.block_table.pop() {",
        "while let Some(id) = (!seq.block_table.is_empty()).then(|| seq.block_table.remove(0)) {",
        "block_manager",
    ),
    Mutation(
        "the last block's hash is looked up",
        ENGINE,
        "{ 0 } else { seq.num_blocks().saturating_sub(1) };",
        "{ 0 } else { seq.num_blocks() };",
        "block_manager",
    ),
    Mutation(
        "a block's hash leaves out the blocks before it",
        ENGINE,
        "hasher.update(&prefix.to_le_bytes());",
        "let _ = prefix;",
        "block_manager",
    ),
    Mutation(
        "a shared block counts one user",
        ENGINE,
        "block.ref_count += 1;",
        "block.ref_count = 1;",
        "block_manager",
    ),
    Mutation(
        "a block is opened one token late",
        ENGINE,
        "seq.num_tokens() % self.block_size == 1",
        "seq.num_tokens() % self.block_size == 2 % self.block_size",
        "block_manager",
    ),
    Mutation(
        "preemption takes the oldest",
        ENGINE,
        "let Some(victim) = self.running.pop_back() else {\n                self.preempt(key);",
        "let Some(victim) = self.running.pop_front() else {\n                self.preempt(key);",
        "scheduler",
    ),
    Mutation(
        "any prompt may be prefilled in part",
        ENGINE,
        "if remaining < num_tokens && !self.batch.is_empty() {",
        "if remaining == 0 {",
        "scheduler",
    ),
    Mutation(
        "an end-of-sequence token ends nothing",
        ENGINE,
        "if !params.ignore_eos && eos.contains(&token) {",
        "if params.ignore_eos && eos.contains(&token) {",
        "traces",
    ),
    Mutation(
        "a chunk's slots start where its block starts",
        ENGINE,
        "let first = start.max(block * block_size) - block * block_size;",
        "let first = 0;",
        "model_runner",
    ),
    Mutation(
        "a chunk attends to itself alone",
        ENGINE,
        "input.context_lens.push(end as u32);",
        "input.context_lens.push((end - start) as u32);",
        "model_runner",
    ),
    Mutation(
        "a decoding sequence pickles all its tokens",
        ENGINE,
        "let tokens = if self.is_prefill {",
        "let tokens = if !self.is_prefill {",
        "sequence",
    ),
    Mutation(
        "rotary embedding turns the other way",
        CPU,
        "(s.mul_add(minus_b, sin, s.mul(a, cos)), s.mul_add(a, sin, s.mul(b, cos)))",
        "(s.mul_add(b, sin, s.mul(a, cos)), s.mul_add(s.sub(s.splat(0.0), a), sin, s.mul(b, cos)))",
        "rotary_embedding",
    ),
    Mutation(
        "scores are scaled by a hundredth less",
        CPU,
        "let plain = std::f32::consts::LOG2_E / (scale.recip() as f32);",
        "let plain = std::f32::consts::LOG2_E / (scale.recip() as f32 * 1.01);",
        "attention",
    ),
    Mutation(
        "a token of another rank gives a row of this one",
        "rust/python/src",
        "if own(id).is_none() {",
        "if own(id).is_none() && id == u32::MAX {",
        "embed_head",
    ),
    Mutation(
        "the MLP is normed with the weights before attention",
        "rust/model/src",
        "self.post_attention_layernorm.add_forward(",
        "self.input_layernorm.add_forward(",
        "qwen3",
    ),
    Mutation(
        "of a tied tensor's names the last counts",
        PACKAGE,
        "sources.setdefault(name, alias)",
        "sources[name] = alias",
        "loader",
    ),
    Mutation(
        "the longest query and the longest key change places",
        PACKAGE,
        "is_prefill, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,",
        "is_prefill, cu_seqlens_q, cu_seqlens_k, max_seqlen_k, max_seqlen_q,",
        "context",
    ),
    Mutation(
        "the norm adds epsilon after the root",
        CPU,
        "1.0 / (sum / n as f32 + eps).sqrt()",
        "1.0 / ((sum / n as f32).sqrt() + eps)",
        "layernorm",
    ),
    Mutation(
        "gate and up are exchanged",
        CPU,
        "G::gated(s, s.load(gate.add(i)), s.load(up.add(i)))",
        "G::gated(s, s.load(up.add(i)), s.load(gate.add(i)))",
        "activation",
    ),
    Mutation(
        "v is loaded where k lies",
        "rust/model/src",
        "shards.push(Shard { stored_shape, rows, cols: 0..cols.unwrap_or(1), offset });",
        "let offset_of_v = if shards.len() == 2 { offset - len } else { offset };"
        "shards.push(Shard { stored_shape, rows, cols: 0..cols.unwrap_or(1), offset: offset_of_v });",
        "linear",
    ),
    Mutation(
        "every row of a batch draws the same noise",
        "rust/python/src",
        "position.wrapping_add(i as u64)",
        "position",
        "sampler",
    ),
    Mutation(
        "decoded tokens are counted as prefilled ones",
        ENGINE,
        "if schedule.is_prefill { schedule.num_prefill_tokens as i64 } else { -(schedule.num_tokens as i64) }",
        "schedule.num_tokens as i64",
        "llm_engine",
    ),
    Mutation(
        "the model's longest length is ignored",
        PACKAGE,
        "self.max_model_len = min(self.max_model_len, self.hf_config.max_position_embeddings)",
        "self.max_model_len = self.hf_config.max_position_embeddings",
        "config",
    ),
)


def copy_sources(to: Path) -> None:
    """Copies the tracked files as new ones: Cargo goes by age, and what it built last may be an earlier mutant."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout  # noqa: S607
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)


def build(copy: Path) -> None:
    """Builds the extension and puts it into the copy's package."""
    options = {"CARGO_TARGET_DIR": str(TARGET), "PYO3_PYTHON": sys.executable, "PYO3_BUILD_EXTENSION_MODULE": "1"}
    command = ["cargo", "build", "--quiet", "-p", "nanovllm-python"]
    done = subprocess.run(command, cwd=copy, env=os.environ | options, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the mutant does not build\n{done.stderr}")
    shutil.copy(TARGET / "debug" / "lib_core.so", copy / "python" / "nanovllm" / "_core.abi3.so")


def run(copy: Path, suites: list[str]) -> tuple[int, str]:
    """Runs suites in the copy: pytest's exit status, and the first test that failed."""
    files = [f"tests/parity/test_{suite}.py" for suite in suites]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants"]
    env = os.environ | {"PYTHONPATH": str(copy / "python")}
    try:
        done = subprocess.run(
            [*command, *files], cwd=copy, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return FAILED, "does not end"
    failed = re.search(r"^FAILED \S*::(\S+)", done.stdout, re.MULTILINE)
    if done.returncode not in (PASSED, FAILED):
        raise SystemExit(f"{suites} did not run\n{done.stdout}\n{done.stderr}")
    return done.returncode, failed[1] if failed else ""


def try_one(copy: Path, mutation: Mutation) -> str:
    """The test that notices the mutation; empty if none does."""
    file = mutation.place(copy)
    source = file.read_text(encoding="utf-8")
    file.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        if file.suffix == ".rs":
            build(copy)
        return run(copy, [mutation.suite])[1]
    finally:
        file.write_text(source, encoding="utf-8")


def main(words: list[str]) -> int:
    """Tries the mutations and prints a line for each."""
    chosen = [m for m in MUTATIONS if not words or any(word in m.behaviour for word in words)]
    # Those of Python come first, while the extension is the one built without any mutation.
    chosen.sort(key=lambda mutation: mutation.folder != PACKAGE)
    survivors = 0
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        copy_sources(copy)
        build(copy)
        status, failed = run(copy, sorted({mutation.suite for mutation in chosen}))
        if status != PASSED:
            raise SystemExit(f"{failed} fails without any mutation")
        print(f"{'mutation':<52}{'suite':<20}noticed by", flush=True)
        for mutation in chosen:
            noticed = try_one(copy, mutation)
            survivors += not noticed
            print(f"{mutation.behaviour:<52}{mutation.suite:<20}{noticed or 'NOTHING'}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutations were noticed")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
