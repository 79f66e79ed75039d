"""The command `nanovllm`, also as `python -m nanovllm`: describes and quantises models."""

import sys

from nanovllm._core import run_command
from nanovllm.utils.hub import resolve_model


def main() -> int:
    """Runs the command line of this process and returns its exit code: 0, 1 after an error, 2 for wrong usage."""
    try:
        return run_command(["nanovllm", *sys.argv[1:]], resolve_model)
    except KeyboardInterrupt:
        return 130  # what a shell reports for a process that SIGINT ended


if __name__ == "__main__":
    sys.exit(main())
