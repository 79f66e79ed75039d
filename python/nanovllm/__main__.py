"""The command `nanovllm`, also as `python -m nanovllm`: describes and quantises models."""

import signal
import sys
from types import FrameType
from typing import NoReturn

from nanovllm._core import run_command
from nanovllm.utils.hub import resolve_model


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """Ends a command as Ctrl-C does, so that it removes what it has begun."""
    raise SystemExit(128 + number)  # what a shell reports for a process that the signal ended


def main() -> int:
    """Runs the command line of this process and returns its exit code: 0, 1 after an error, 2 for wrong usage."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _end)
    try:
        return run_command(["nanovllm", *sys.argv[1:]], resolve_model)
    except KeyboardInterrupt:
        return 130  # what a shell reports for a process that SIGINT ended


if __name__ == "__main__":
    sys.exit(main())
