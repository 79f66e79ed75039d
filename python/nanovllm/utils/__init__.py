"""Helpers around the engine: models by name, checkpoints into modules, the tokenizer, the context, memory."""
