"""The places that programs call an engine from: notebooks, IPython, other event loops, threads, other processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from nanovllm import LLM, AsyncLLM, SamplingParams

EXAMPLES = Path(__file__).parent.parent / "examples"
TINY = str(Path(__file__).parent / "golden" / "tiny_qwen3")
GREEDY = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def run_notebook(notebook: Any, directory: Path) -> None:
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(directory)}}).execute()


def texts(cell: Any) -> str:
    """What a cell has printed and shown."""
    return "".join(output.get("text", "") or str(output.get("data", "")) for output in cell.outputs)


def test_the_notebook_runs(demo_model: str) -> None:
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = f"model = {demo_model!r}"
    run_notebook(notebook, EXAMPLES)
    shown = [texts(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert "<LLM of" in shown[1]
    assert "Warning" not in "".join(shown)
    assert "3. 3" in shown[2]
    assert shown[-1].partition("[")[2] == shown[-3].rpartition("[")[2]


def notebook_of(*sources: str) -> Any:
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(source)) for source in sources]
    return nbformat.v4.new_notebook(cells=cells)


SETUP = f"""
    import os, signal, threading
    from nanovllm import LLM, AsyncLLM, SamplingParams
    endless = SamplingParams(max_tokens=100_000, ignore_eos=True)
    short = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
    # What the button "Interrupt" does.
    interrupt_soon = lambda: threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT)).start()
    options = dict(num_kvcache_blocks=64)
    model = {TINY!r}
"""
"""Cells that a test goes on from."""


@pytest.mark.parametrize(
    "work",
    [
        "llm.generate([[1, 2, 3]] * 40, endless)",
        "llm.generate([[1, 2, 3]] * 40, endless, use_tqdm=False)",
        "for output in llm.stream([1, 2, 3], SamplingParams(n=30, max_tokens=100_000, ignore_eos=True)): pass",
    ],
)
def test_interrupting_a_cell_drops_its_requests(tmp_path: Path, work: str) -> None:
    endless = f"""
        interrupt_soon()
        while True:
            {work}
    """
    notebook = notebook_of(
        SETUP,
        "llm = LLM(model, **options); before = llm.generate([[5]], short)",
        endless,
        """
            assert llm.stats()["num_free_blocks"] == 64, llm.stats()
            assert llm.generate([[5]], short) == before
            "it works again"
        """,
    )
    notebook.cells[2].metadata["tags"] = ["raises-exception"]
    run_notebook(notebook, tmp_path)
    assert "KeyboardInterrupt" in str(notebook.cells[2].outputs)
    assert "it works again" in texts(notebook.cells[3])


def test_a_cell_that_awaits(tmp_path: Path) -> None:
    notebook = notebook_of(
        SETUP,
        "llm = AsyncLLM(model, **options)",
        "texts = [output.text async for output in llm.generate([5], short)]",
        """
            import asyncio
            task = asyncio.create_task(anext(llm.generate([1, 2], endless)))
            first = await task
        """,
        """
            async with llm:
                again = [output.text async for output in llm.generate([5], short)]
            assert again[-1] == texts[-1]
            "the same"
        """,
    )
    run_notebook(notebook, tmp_path)
    assert "the same" in texts(notebook.cells[-1])


def test_an_error_in_a_cell_is_its_own(tmp_path: Path) -> None:
    notebook = notebook_of(SETUP, "llm = LLM(model, **options)", "llm.generate([[10 ** 6]])")
    with pytest.raises(CellExecutionError, match="outside the vocabulary"):
        run_notebook(notebook, tmp_path)


def test_ipython(tmp_path: Path) -> None:
    code = f"""
        from nanovllm import LLM, AsyncLLM, SamplingParams
        params = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
        llm = LLM({TINY!r}, num_kvcache_blocks=64)
        one = llm.generate([[1, 2, 3]], params)[0].text
        async with AsyncLLM({TINY!r}, num_kvcache_blocks=64) as engine:
            parts = [output async for output in engine.generate([1, 2, 3], params)]
        print(parts[-1].text == one, "LLM" in repr(llm))
    """
    command = [sys.executable, "-m", "IPython", "--ipython-dir", str(tmp_path), "--colors=NoColor", "-c"]
    done = subprocess.run([*command, textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "True True" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
def test_uvloop(demo_model: str) -> None:
    code = f"""
        import sys
        import uvloop
        sys.path.insert(0, {str(EXAMPLES)!r})
        import async_many
        uvloop.run(async_many.ask({demo_model!r}))
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Jupiter:" in done.stdout
    assert done.stderr == ""


def _answer(_: int) -> list[int]:
    with LLM(TINY, num_kvcache_blocks=8, num_threads=1) as llm:
        return list(llm.generate([[1, 2, 3]], GREEDY, use_tqdm=False)[0].token_ids)


@pytest.mark.parametrize("method", [m for m in ("spawn", "fork") if m in multiprocessing.get_all_start_methods()])
def test_processes_have_engines_of_their_own(method: str) -> None:
    with LLM(TINY, num_kvcache_blocks=8) as llm:
        expected = llm.generate([[1, 2, 3]], GREEDY, use_tqdm=False)[0].token_ids
        # Also in a child of a process that has one.
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(_answer, range(3)) == [expected] * 3
        assert llm.generate([[1, 2, 3]], GREEDY, use_tqdm=False)[0].token_ids == expected


def test_engines_do_not_go_to_other_processes() -> None:
    with LLM(TINY, num_kvcache_blocks=8) as llm, AsyncLLM(TINY, num_kvcache_blocks=8) as engine:
        for thing in (llm, engine):
            with pytest.raises(TypeError, match=r"cannot be pickled.*make one in each process"):
                pickle.dumps(thing)


def test_an_engine_that_is_left_open_does_not_hold_the_end_up() -> None:
    code = f"""
        import asyncio, threading
        from nanovllm import LLM, AsyncLLM, SamplingParams
        endless = SamplingParams(max_tokens=100_000, ignore_eos=True)
        llm, engine = LLM({TINY!r}, num_kvcache_blocks=64), AsyncLLM({TINY!r}, num_kvcache_blocks=64)
        stream = llm.stream([1, 2], endless)
        next(stream)
        threading.Thread(target=llm.generate, args=([[1, 2, 3]] * 9, endless, False), daemon=True).start()
        asyncio.run(anext(engine.generate([1, 2], endless)))
        print("done")
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=dict(os.environ))
    assert (done.stdout, done.stderr) == ("done\n", "")
