"""The engine as nano-vLLM lays it out; the work is done in Rust."""
