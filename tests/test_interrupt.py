"""Ctrl-C stops a step between two slices and leaves the engine usable; other threads run while the engine works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nanovllm import LLM, SamplingParams

# A shell starts background jobs with SIGINT ignored, and children inherit that: hence the handler set by hand.
INTERRUPTED = """
import signal, sys, threading, time
from nanovllm import LLM, SamplingParams

signal.signal(signal.SIGINT, signal.default_int_handler)

llm = LLM(sys.argv[1], num_kvcache_blocks=64, max_model_len=2048)
greedy = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
expected = llm.generate("Once upon a time", greedy, use_tqdm=False)
start = time.perf_counter()
llm.generate([[5 * j % 1000 for j in range(512)]], SamplingParams(max_tokens=1), use_tqdm=False)
slice = time.perf_counter() - start
other = llm.add_request("Another caller's", greedy)

# Seconds of work in one prefill step, so that only a check between slices can stop it in time.
prompts = [[(7 * i + j) % 1000 for j in range(2000)] for i in range(6)]
pressed = []

def press():
    pressed.append(time.perf_counter())
    signal.raise_signal(signal.SIGINT)

timer = threading.Timer(0.3, press)
timer.start()
start = time.perf_counter()
try:
    llm.generate(prompts, SamplingParams(temperature=0, max_tokens=2000, ignore_eos=True), use_tqdm=False)
except KeyboardInterrupt:
    waited = time.perf_counter() - pressed[0]
else:
    sys.exit("generate was not interrupted")
timer.join()

assert not llm.is_finished()  # the other caller's sequence is still there, and only that
stats = llm.stats()
assert stats["num_waiting"] + stats["num_running"] == 1, stats
while not llm.is_finished():
    for seq_id, token_ids in llm.step()[0]:
        assert seq_id == other and len(token_ids) == 4
again = llm.generate("Once upon a time", greedy, use_tqdm=False)
assert again[0]["token_ids"] == expected[0]["token_ids"], (again, expected)
stats = llm.stats()
assert stats["num_free_blocks"] == stats["num_kvcache_blocks"], stats
print(waited / slice)
"""


def run_child(script: str, model: str) -> str:
    child = subprocess.run(
        [sys.executable, "-c", script, model], check=False, capture_output=True, text=True, timeout=300
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_ctrl_c_returns_within_slices_and_leaves_the_engine_usable(demo_model: str) -> None:
    slices = float(run_child(INTERRUPTED, demo_model))
    # The whole step has 24 slices; one may have begun, and those of long prompts take longer.
    assert slices < 6


# Comparisons of long texts: few instructions, and minutes of work.
SLOW_TEMPLATE = """
import signal, sys, threading, time
from nanovllm import LLM

signal.signal(signal.SIGINT, signal.default_int_handler)
llm = LLM(sys.argv[1], num_kvcache_blocks=64)
template = (
    "{% set x = 'a' * 1000000 %}{% set y = 'a' * 999999 ~ 'b' %}"
    "{% for i in range(100000) %}{% if x == y or x == y or x == y or x == y or x == y %}{% endif %}{% endfor %}"
)
pressed = []

def press():
    pressed.append(time.perf_counter())
    signal.raise_signal(signal.SIGINT)

timer = threading.Timer(0.5, press)
timer.start()
try:
    llm.chat([{"role": "user", "content": "hi"}], chat_template=template)
except KeyboardInterrupt:
    print(time.perf_counter() - pressed[0])
"""


def test_ctrl_c_ends_a_slow_template(demo_model: str) -> None:
    assert float(run_child(SLOW_TEMPLATE, demo_model)) < 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_from_outside_ends_a_script(demo_model: str) -> None:
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from nanovllm import LLM, SamplingParams; llm = LLM(sys.argv[1], num_kvcache_blocks=64)\n"
        "print('ready', flush=True)\n"
        "llm.generate([[5] * 2000] * 6, SamplingParams(max_tokens=2000, ignore_eos=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, demo_model], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    assert "panick" not in errors


def test_pure_python_runs_while_the_engine_works(demo_model: str) -> None:
    """A step holds no GIL: Python code in another thread runs during one, which is a single call into Rust."""
    llm = LLM(demo_model, num_kvcache_blocks=16, num_threads=1)
    llm.add_request([5] * 2000, SamplingParams(max_tokens=1))
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        start = time.perf_counter()
        _, num_tokens = llm.step()
        end = time.perf_counter()
    finally:
        stop.set()
        thread.join()
    assert num_tokens == 2000
    # Of a thousand ticks a second, ten need to have come, and not only at the step's ends: the machine may be busy.
    step = end - start
    inside = [t for t in ticks if start + 0.1 * step < t < end - 0.1 * step]
    assert len(inside) >= 10, f"{len(inside)} ticks in a step of {step:.3f} s"


def test_loading_and_tokenising_hold_no_gil_either(demo_model: str) -> None:
    llm = LLM(demo_model, num_kvcache_blocks=1)
    text = (Path(__file__).parent / "golden" / "public_domain.txt").read_text(encoding="utf-8") * 100
    for work in (lambda: LLM(demo_model, num_kvcache_blocks=1), lambda: llm.tokenizer.encode(text)):
        ticks = 0
        done = threading.Event()
        thread = threading.Thread(target=lambda work=work, done=done: (work(), done.set()))
        thread.start()
        while not done.wait(0.001):
            ticks += 1
        thread.join()
        assert ticks >= 3


# The handler raises wherever `generate` is on the stack, so several times while one call is unwound; the tracebacks are
# kept, and with them whatever their frames refer to.
STORM = """
import signal, sys
from nanovllm import LLM, SamplingParams

llm = LLM(sys.argv[1], num_kvcache_blocks=600, max_model_len=256)
params = SamplingParams(temperature=0, max_tokens=50, ignore_eos=True)
raised, kept = 0, []

def handler(_signum, frame):
    global raised
    while frame is not None:
        if frame.f_code.co_name == "generate":
            raised += 1
            raise KeyboardInterrupt
        frame = frame.f_back

signal.signal(signal.SIGALRM, handler)
prompts = [[1, 2, i % 100] for i in range(5000)]
for delay in range(1, 60):
    signal.setitimer(signal.ITIMER_REAL, delay * 0.0007, 0.0001)
    try:
        llm.generate(prompts, params, use_tqdm=delay % 2 == 0)
    except KeyboardInterrupt as error:
        kept.append(error)
    signal.setitimer(signal.ITIMER_REAL, 0)
    stats = llm.stats()
    assert stats["num_waiting"] + stats["num_running"] == 0, (delay, stats)
    assert llm.is_finished()
assert raised >= len(kept) > 50, (raised, len(kept))
assert len(llm.generate([[1, 2, 3]] * 3, params, use_tqdm=False)) == 3
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_a_storm_of_interrupts_leaves_nothing_queued(tiny_qwen3: str) -> None:
    run_child(STORM, tiny_qwen3)


# A trace function raises before each instruction that it has not met yet. What runs after that is traced no more: it is
# met in the second part, where a signal is the first interrupt and the trace function the next.
EVERY_INSTRUCTION = """
import io, signal, sys
from pathlib import Path
import nanovllm
from nanovllm import LLM, SamplingParams

class Terminal(io.StringIO):
    def isatty(self):
        return True

llm = LLM(sys.argv[1], num_kvcache_blocks=512, max_model_len=256, max_num_seqs=512)
params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
many = [[1, 2, i % 100] for i in range(1000)]  # so that there is time to interrupt
few = many[:20]  # as every instruction is reached anew
package = str(Path(nanovllm.__file__).parent)
seen, kept = set(), []

def trace(frame, event, _arg):
    if not frame.f_code.co_filename.startswith(package):
        return None
    frame.f_trace_opcodes = True
    if event == "opcode" and (place := (frame.f_code, frame.f_lasti)) not in seen:
        seen.add(place)
        raise KeyboardInterrupt
    return trace

def interrupted(use_tqdm, prompts):
    sys.settrace(trace)
    try:
        answers = llm.generate(prompts, params, use_tqdm=use_tqdm)
    except KeyboardInterrupt as error:
        kept.append(error)
        return True
    finally:
        sys.settrace(None)
        stats = llm.stats()
        assert stats["num_waiting"] + stats["num_running"] == 0, stats
        assert stats["num_free_blocks"] == stats["num_kvcache_blocks"], stats
    assert len(answers) == len(prompts)
    return False

def handler(_signum, frame):
    while frame is not None and frame.f_code is not LLM.generate.__code__:
        frame = frame.f_back
    if frame is not None:
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handler)
errors = sys.stderr
for use_tqdm in (False, True):
    sys.stderr = Terminal() if use_tqdm else errors
    before = len(kept)
    while interrupted(use_tqdm, few):
        pass
    assert len(kept) - before > 50, len(kept)
    before = len(kept)
    for delay in range(1, 40):
        signal.setitimer(signal.ITIMER_REAL, delay * 0.001)
        interrupted(use_tqdm, many)
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(kept) - before > 10, len(kept)
sys.stderr = errors
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_an_interrupt_before_any_instruction_leaves_nothing_queued(tiny_qwen3: str) -> None:
    """Every instruction of the package that `generate` runs is interrupted, and the tracebacks are kept."""
    run_child(EVERY_INSTRUCTION, tiny_qwen3)
