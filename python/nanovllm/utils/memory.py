"""Asks how much memory a device has."""

from nanovllm import _core


def get_gpu_memory(*, device: str = "cpu") -> tuple[int, int, int]:
    """Memory in bytes: total, used and free, under the name older releases of nano-vLLM have for it.

    Of the CPU it is what this process may use: the machine's memory, or its control group's limit where that leaves
    less. Caches that the system gives up on demand count as free. Raises ValueError for an unknown device.
    """
    return _core.memory(device=device)
