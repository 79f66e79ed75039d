"""A built wheel, and what whoever installs it gets: `make wheel-test` builds one and names it with `--wheel`."""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name, parse_wheel_filename

from nanovllm import LLM, SamplingParams

ROOT = Path(__file__).parent.parent
VERSION = re.findall(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(encoding="utf-8"), re.MULTILINE)[0]
EXTENSION = re.compile(r"nanovllm/_core(\.abi3\.so|\.pyd)")


@pytest.fixture(scope="session")
def wheel(request: pytest.FixtureRequest) -> Path:
    path = request.config.getoption("wheel")
    if path is None:
        pytest.skip("needs --wheel")
    return Path(path).resolve()


@pytest.fixture(scope="session")
def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and what it needs at run time, and not even pip."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    run(*install, "--require-hashes", "--only-binary", ":all:", "--requirement", ROOT / "requirements" / "run.lock")
    run(*install, "--no-index", "--no-deps", wheel)
    return python


def run(*command: str | Path, cwd: Path | None = None) -> str:
    child = subprocess.run(command, check=False, capture_output=True, text=True, encoding="utf-8", cwd=cwd)
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_one_wheel_is_for_every_python(wheel: Path) -> None:
    name, version, _, tags = parse_wheel_filename(wheel.name)
    assert (name, str(version)) == ("nanovllm-rs", VERSION)
    assert {(tag.interpreter, tag.abi) for tag in tags} == {("cp310", "abi3")}
    if sys.platform == "linux":
        assert all(tag.platform.startswith("manylinux") for tag in tags)


def test_it_holds_the_package_and_nothing_else(contents: dict[str, bytes]) -> None:
    package = ROOT / "python"
    files = [path for suffix in ("*.py", "*.pyi", "py.typed") for path in (package / "nanovllm").rglob(suffix)]
    sources = {path.relative_to(package).as_posix(): path.read_bytes() for path in files}
    assert {name: contents.get(name) for name in sources} == sources
    info = f"nanovllm_rs-{VERSION}.dist-info/"
    rest = contents.keys() - sources.keys()
    assert {name.removeprefix(info) for name in rest if name.startswith(info)} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }
    (extension,) = [name for name in rest if not name.startswith(info)]
    assert EXTENSION.fullmatch(extension)


def test_it_says_what_it_is(contents: dict[str, bytes]) -> None:
    info = f"nanovllm_rs-{VERSION}.dist-info"
    metadata = email.message_from_bytes(contents[f"{info}/METADATA"])
    assert metadata["Version"] == VERSION
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "MIT"
    assert contents[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


def test_it_does_not_tell_where_its_checkout_lies(contents: dict[str, bytes]) -> None:
    assert not [name for name, data in contents.items() if str(ROOT).encode() in data]


def test_what_it_needs_is_all_there_is(python: Path) -> None:
    def pip(*arguments: str) -> str:
        return run(sys.executable, "-m", "pip", "--python", python, *arguments)

    pip("check")
    installed = {canonicalize_name(each["name"]) for each in json.loads(pip("list", "--format", "json"))}
    assert {"nanovllm-rs", "numpy", "tokenizers", "tqdm", "huggingface-hub"} <= installed
    assert not installed & {"torch", "transformers", "pytest", "maturin", "pip"}


def test_a_model_answers(python: Path, tiny_qwen3: str, tmp_path: Path) -> None:
    script = f"""
import importlib.util, json, nanovllm, sys
from nanovllm import LLM, SamplingParams
llm = LLM({tiny_qwen3!r}, num_kvcache_blocks=4)
(output,) = llm.generate("the quick brown fox", SamplingParams(temperature=0, max_tokens=8), use_tqdm=False)
torch = importlib.util.find_spec("torch") is not None or "torch" in sys.modules
print(json.dumps([nanovllm.__file__, nanovllm.__version__, torch, output]))
"""
    file, version, torch, output = json.loads(run(python, "-I", "-c", script, cwd=tmp_path))
    assert python.parent.parent in Path(file).parents
    assert version == VERSION
    assert not torch
    greedy = SamplingParams(temperature=0, max_tokens=8)
    assert [output] == LLM(tiny_qwen3, num_kvcache_blocks=4).generate("the quick brown fox", greedy, use_tqdm=False)


def test_the_command_is_installed(python: Path, tiny_qwen3: str, tmp_path: Path) -> None:
    command = python.parent / "nanovllm"
    text = run(command, "--help", cwd=tmp_path)
    assert "info" in text
    assert "quantize" in text
    assert json.loads(run(command, "info", tiny_qwen3, "--json", cwd=tmp_path))["architecture"] == "Qwen3ForCausalLM"


def test_type_checkers_see_its_types(python: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "from nanovllm import LLM\nfrom nanovllm._core import device_names\nreveal_type(LLM('a'))\n"
        "reveal_type(device_names())\n",
        encoding="utf-8",
    )
    text = run(sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "user.py", cwd=tmp_path)
    assert re.findall(r'Revealed type is "(.*)"', text) == ["nanovllm.llm.LLM", "list[str]"], text
