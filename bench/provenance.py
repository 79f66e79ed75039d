"""Where figures come from: the machine, the build and the day, for whoever reads them later."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nanovllm import _core

ROOT = Path(__file__).parent.parent


def processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def provenance(threads: int, rounds: int) -> dict[str, object]:
    """What a table must say of how it was made: machine, commit, versions, day, threads and rounds."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "machine": processor(),
        "cores": os.cpu_count(),
        "instruction_sets": [name for name, is_available in _core.instruction_sets().items() if is_available],
        "memory_gb": round(_core.memory(device="cpu")[0] / 1e9),
        "commit": _git("rev-parse", "--short=10", "HEAD"),
        "changed_since": bool(status),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "threads": threads,
        "rounds": rounds,
    }


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True)  # noqa: S607
    return done.stdout.strip() if done.returncode == 0 else None


def peer_version(python: str) -> str | None:
    """The version of llama-cpp-python that an interpreter has, or None."""
    if python == sys.executable:
        try:
            return version("llama-cpp-python")
        except PackageNotFoundError:
            return None
    code = "from importlib.metadata import version; print(version('llama-cpp-python'))"
    done = subprocess.run([python, "-c", code], check=False, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def sentence(made: dict[str, object]) -> str:
    """The same in words, to stand above a table."""
    commit = f"commit {made['commit']}" + (", changed" if made["changed_since"] else "")
    sets = made["instruction_sets"]
    best = sets[-1] if isinstance(sets, list) else ""
    rounds = "one round" if made["rounds"] == 1 else f"medians of {made['rounds']} rounds"
    return (
        f"{made['machine']}, {made['cores']} cores, {best}, {made['memory_gb']} GB; {made['threads']} threads, "
        f"{rounds}, {made['date']}, {commit}"
    )
