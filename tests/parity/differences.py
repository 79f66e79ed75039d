"""nano-vLLM's names that are not here, or take something else, each with its reason; as in `docs/compatibility.md`."""

from __future__ import annotations

_ONE_PROCESS = "there is one process, and no shared memory between ranks"

ABSENT = {
    "engine.model_runner.ModelRunner.loop": _ONE_PROCESS,
    "engine.model_runner.ModelRunner.read_shm": _ONE_PROCESS,
    "engine.model_runner.ModelRunner.write_shm": _ONE_PROCESS,
    "engine.model_runner.ModelRunner.allocate_kv_cache": "model and cache are allocated together",
    "engine.model_runner.ModelRunner.capture_cudagraph": "the CPU has no graphs",
    "layers.attention.store_kvcache_kernel": "a kernel of triton's; store_kvcache is what calls it",
}
OTHERWISE: dict[str, str] = {}
