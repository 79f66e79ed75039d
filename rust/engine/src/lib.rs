//! Sequences, block manager, scheduler, model runner and the engine step, with nano-vLLM's semantics.
