"""Where the demo model is, if it is on this machine."""

from __future__ import annotations

import os
from pathlib import Path

FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def find_demo_model() -> Path | None:
    """Return the path named by `NANOVLLM_DEMO_MODEL`, else the one in the cache folder, else None.

    A path given by the environment that does not exist is an error: a test run that asked for the demo model must not
    skip it silently.
    """
    given = os.environ.get("NANOVLLM_DEMO_MODEL")
    if given:
        path = Path(given)
        if not path.is_file():
            raise FileNotFoundError(f"NANOVLLM_DEMO_MODEL names {path}, which is not a file")
        return path
    path = Path.home() / ".cache" / "nanovllm-rs" / FILE_NAME
    return path if path.is_file() else None
