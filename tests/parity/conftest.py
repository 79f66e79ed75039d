"""The fixture `reference`, the option that makes it nano-vLLM itself, and the count of what ran."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from parity import counts
from parity.fixture import Reference

settings.register_profile(
    "parity", max_examples=1000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
# For tests/tools/mutations.py, which only asks whether anything fails: fewer examples, and none is shrunk.
settings.register_profile("mutants", max_examples=300, deadline=None, phases=[Phase.explicit, Phase.generate])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nano-vllm", metavar="PATH", help="a checkout of nano-vLLM to compare with, on torch")


@pytest.fixture(scope="session")
def reference(request: pytest.FixtureRequest) -> Reference:
    """nano-vLLM's modules: modelled, or live where `--nano-vllm` names a checkout."""
    checkout = request.config.getoption("nano_vllm", default=None)
    return Reference(None if checkout is None else Path(checkout).resolve())


@pytest.fixture(scope="session")
def nano_vllm(reference: Reference) -> Any:
    """nano-vLLM's own modules, for what no model of it can show; skipped without a checkout."""
    if not reference.live:
        pytest.skip("needs --nano-vllm")
    from parity import standins

    return standins.loaded()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A suite's `subject` is our package; beside nano-vLLM itself, the model of it is held to the same."""
    if "subject" in metafunc.fixturenames:
        live = metafunc.config.getoption("nano_vllm", default=None) is not None
        metafunc.parametrize("subject", ["nanovllm", "model"] if live else ["nanovllm"], indirect=True)


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest) -> Any:
    """What is compared with `reference`: the same modules, of our package or of the model."""
    if request.param == "model":
        return Reference(None)
    from parity import ours  # imported here, as the suites of the layers do without the engine's classes

    return ours


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Counts each example that hypothesis draws for a suite, under the suite's name."""
    handle = getattr(pyfuncitem.obj, "hypothesis", None)
    if handle is not None:
        inner, suite = handle.inner_test, pyfuncitem.path.stem.removeprefix("test_")

        @functools.wraps(inner)
        def counted(*args: object, **kwargs: object) -> object:
            counts.add(suite, examples=1)
            return inner(*args, **kwargs)

        handle.inner_test = counted
        try:
            return (yield)
        finally:
            handle.inner_test = inner
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says how much ran, after a run with the profile `parity`."""
    if config.getoption("--hypothesis-profile", default=None) == "parity":
        terminalreporter.section("examples and steps, by suite")
        for line in counts.table():
            terminalreporter.line(line)
