"""The tables of the documents are what `bench/table.py` makes of committed figures, and the benchmarks count right."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture(scope="module", autouse=True)
def bench_path() -> object:
    """Its scripts import each other, as a script's folder is where Python looks first."""
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documents_have_the_tables_of_the_committed_figures() -> None:
    table = script("table")
    marked = 0
    for document in table.DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        marked += len(table.MARKED.findall(text))
        assert text == table.filled(text), f"python bench/table.py --write ({document.name})"
    assert marked == len(list((BENCH / "results").glob("*.json"))) > 0


def test_committed_figures_say_where_they_come_from() -> None:
    import json

    for path in (BENCH / "results").glob("*.json"):
        made = json.loads(path.read_text(encoding="utf-8"))["made"]
        assert {"machine", "commit", "date", "threads", "rounds", "instruction_sets"} <= made.keys(), path.name


def test_agreement_is_counted_by_rows() -> None:
    compare = script("agreement").compare
    logits = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    assert compare(logits, logits) == {"top1": 1.0, "mean_kl": pytest.approx(0, abs=1e-12)}
    assert compare(logits, logits + 3.0)["mean_kl"] == pytest.approx(0, abs=1e-6)  # a constant changes no probability
    swapped = logits.copy()
    best, other = logits[0].argmax(), (logits[0].argmax() + 1) % 5
    swapped[0, [best, other]] = logits[0, [other, best]]
    assert compare(logits, swapped)["top1"] == 7 / 8
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (logits, swapped))
    assert compare(logits, swapped)["mean_kl"] == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-4)
