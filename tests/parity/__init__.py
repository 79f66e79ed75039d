"""Parity with nano-vLLM: one suite for each of its modules, against a model of it or against itself."""
