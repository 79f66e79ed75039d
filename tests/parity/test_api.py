"""Every public name of nano-vLLM, where it is there, with parameters that begin with its own."""

from __future__ import annotations

import ast
import importlib
import inspect
from typing import Any

import pytest

import nanovllm
from parity import counts
from parity.api import entries
from parity.differences import ABSENT

KINDS = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
SPECIAL = ("__len__", "__getitem__", "__getstate__", "__setstate__")


def parameters_of(thing: Any) -> list[str]:
    """Names of parameters, `self` left out."""
    parameters = inspect.signature(thing).parameters.values()
    names = [p.name for p in parameters if p.kind in KINDS]
    extra = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    return names[names[:1] == ["self"] :] + ["**"] * extra


MODULES = list(dict.fromkeys(module for module, _, _ in entries()))


@pytest.mark.parametrize("module", MODULES)
def test_names(module: str) -> None:
    wrong = []
    for _, name, parameters in (entry for entry in entries() if entry[0] == module):
        counts.add("api", examples=1)
        thing: Any = importlib.import_module(f"nanovllm.{module}")
        for part in name.split("."):
            thing = getattr(thing, part, None)
        if (thing is None) != (f"{module}.{name}" in ABSENT):
            wrong.append(f"{name} is {'absent' if thing is None else 'there, though listed as absent'}")
        elif thing is not None and parameters is not None:
            ours = parameters_of(thing)
            # Where nano-vLLM takes any keyword, ours may name those that mean something.
            named = [name for name in parameters if name != "**"]
            if ours[: len(named)] != named or ("**" in parameters and "**" not in ours):
                wrong.append(f"{name} takes {ours}, nano-vLLM's {parameters}")
    assert not wrong


def test_the_package_exports_what_scripts_import() -> None:
    assert nanovllm.LLM is importlib.import_module("nanovllm.llm").LLM
    assert nanovllm.SamplingParams is importlib.import_module("nanovllm.sampling_params").SamplingParams
    assert issubclass(nanovllm.LLM, importlib.import_module("nanovllm.engine.llm_engine").LLMEngine)


def names_of(source: str) -> list[tuple[str, list[str] | None]]:
    """Public names that a source defines, in order, as `parity.api` lists them."""
    names: list[tuple[str, list[str] | None]] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            names.append((node.name, arguments(node)))
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            fields = [part.target.id for part in node.body if isinstance(part, ast.AnnAssign)]
            init = next((arguments(method)[1:] for method in methods if method.name == "__init__"), fields or None)
            names.append((node.name, init))
            for method in methods:
                if not method.name.startswith("_") or method.name in SPECIAL:
                    is_property = "property" in map(ast.unparse, method.decorator_list)
                    names.append((f"{node.name}.{method.name}", None if is_property else arguments(method)[1:]))
    return names


def arguments(function: ast.FunctionDef) -> list[str]:
    """Names of its parameters."""
    args = function.args
    return [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)] + ["**"] * (args.kwarg is not None)


def test_the_list_is_complete(reference: Any) -> None:
    """It is nano-vLLM's, name by name, where there is a checkout."""
    assert len(MODULES) == 18
    if not reference.live:
        return
    from parity import standins

    package = standins.loaded().checkout / "nanovllm"
    files = sorted(file for file in package.rglob("*.py") if file.stem != "__init__")
    assert [".".join(file.relative_to(package).with_suffix("").parts) for file in files] == MODULES
    found = [
        (module, name, parameters)
        for module, file in zip(MODULES, files, strict=True)
        for name, parameters in names_of(file.read_text())
    ]
    assert found == entries()
