"""`utils/memory.py`, which only older releases of nano-vLLM have: held to what Linux says of itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nanovllm.utils.memory import get_gpu_memory
from parity.arrays import DEVICES


def machine() -> tuple[int, int]:
    """Total and available bytes of the machine."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = {words[0]: int(words[1]) for words in lines}
    return 1024 * kilobytes["MemTotal:"], 1024 * kilobytes["MemAvailable:"]


def group_limits() -> list[int]:
    """Limits of the process's control groups, versions 1 and 2."""
    limits = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount = Path("/sys/fs/cgroup", "memory" if controllers else "")
        group = Path(path.lstrip("/"))
        for directory in (mount / group, *(mount / parent for parent in group.parents)):
            for name in ("memory.max", "memory.limit_in_bytes"):
                file = directory / name
                text = file.read_text().strip() if file.is_file() else "max"
                limits += [int(text)] if text != "max" else []
    return limits


@pytest.mark.parametrize("device", DEVICES)
def test_total_used_and_free(device: str) -> None:
    total, used, free = get_gpu_memory(device=device)
    assert 0 < used <= total
    assert free > 0
    assert total == used + free


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_linux_says() -> None:
    before, (total, _, free), after = machine(), get_gpu_memory(), machine()
    assert total in {before[0], *(limit for limit in group_limits() if limit < before[0])}
    # Free is what the group or the machine has left, which other processes change meanwhile.
    slack = before[0] // 10
    assert free <= max(before[1], after[1]) + slack
    if total == before[0]:
        assert free >= min(before[1], after[1]) - slack


def test_an_unknown_device() -> None:
    with pytest.raises(ValueError, match="device must be"):
        get_gpu_memory(device="abacus")
