"""nano-vLLM's names that are not here, each with its reason; docs/compatibility.md has all differences."""

ABSENT = {
    "engine.model_runner.ModelRunner.loop": "one process runs every step, so none waits for another's calls",
    "engine.model_runner.ModelRunner.read_shm": "no memory is shared between processes",
    "engine.model_runner.ModelRunner.write_shm": "no memory is shared between processes",
    "engine.model_runner.ModelRunner.allocate_kv_cache": "the constructor allocates the cache, and it stays as it is",
    "engine.model_runner.ModelRunner.capture_cudagraph": "no device here captures steps; the sizes it would are known",
    "layers.attention.store_kvcache_kernel": "a triton kernel; store_kvcache does its work",
}
