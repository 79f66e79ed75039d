"""The engine's parts under the names of nano-vLLM's modules; `nanovllm._core`, in Rust, does their work."""
