"""The device that layers share: threads take turns on it, and a forked child makes its own."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nanovllm.layers.activation import SiluAndMul
from nanovllm.layers.layernorm import RMSNorm

FORKED = """
import os, warnings
import numpy as np
from nanovllm.layers.activation import SiluAndMul

warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is the point
x = np.ones((64, 1024), np.float32)
parents = SiluAndMul()
expected = parents(x)
child = os.fork()
if child == 0:
    try:
        parents(x)
    except RuntimeError as error:
        fine = "does not survive fork" in str(error) and np.array_equal(SiluAndMul()(x), expected)
        os._exit(0 if fine else 1)
    os._exit(2)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(parents(x), expected)
"""


def test_threads_take_turns() -> None:
    x = np.random.default_rng(0).standard_normal((8, 64, 512)).astype(np.float32)
    silu, norm = SiluAndMul(), RMSNorm(256)
    expected = [norm(silu(part)) for part in x]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            for got, want in zip(threads.map(lambda part: norm(silu(part)), x), expected, strict=True):
                np.testing.assert_array_equal(got, want)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_makes_its_own() -> None:
    child = subprocess.run([sys.executable, "-c", FORKED], check=False, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
