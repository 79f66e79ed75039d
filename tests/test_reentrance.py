"""Ways back into an engine that would wait forever: a signal handler in the middle of a step, a forked child."""

import os
import signal
import subprocess
import sys

import pytest

REENTERED = """
import signal, sys
from nanovllm import LLM, SamplingParams

llm = LLM(sys.argv[1], max_model_len=2048)
errors = []

def handler(_signum, _frame):
    for call in (llm.stats, lambda: llm.generate([[1, 2, 3]], SamplingParams(max_tokens=1), use_tqdm=False)):
        try:
            call()
        except RuntimeError as error:
            errors.append(str(error))

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
prompts = [[(7 * i + j) % 1000 for j in range(2000)] for i in range(4)]
outputs = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=1, ignore_eos=True), use_tqdm=False)
signal.setitimer(signal.ITIMER_REAL, 0)
assert [len(output["token_ids"]) for output in outputs] == [1] * 4
assert len(errors) > 1 and all("in the middle of a call" in error for error in errors), errors
stats = llm.stats()
assert stats["num_waiting"] + stats["num_running"] == 0, stats
"""

FORKED = """
import os, sys, warnings
from nanovllm import LLM, SamplingParams

warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is the point
llm = LLM(sys.argv[1], num_threads=2)
greedy = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
llm.generate([1, 2, 3], greedy, use_tqdm=False)
child = os.fork()
if child == 0:
    try:
        llm.generate([1, 2, 3], greedy, use_tqdm=False)
    except RuntimeError as error:
        llm.exit()
        os._exit(0 if "fork" in str(error) else 1)
    os._exit(2)
assert os.waitpid(child, 0)[1] == 0
assert len(llm.generate([1, 2, 3], greedy, use_tqdm=False)[0]["token_ids"]) == 3
"""


def run_child(script: str, model: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", script, model], check=False, capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0, child.stderr


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_a_signal_handler_may_not_come_back_to_its_engine(demo_model: str) -> None:
    run_child(REENTERED, demo_model)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told(tiny_qwen3: str) -> None:
    run_child(FORKED, tiny_qwen3)
