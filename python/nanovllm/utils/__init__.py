"""Helpers around the engine: finding models, and the tokenizer's face."""
