"""nano-vLLM itself behind the names of `reference.nano`; `standins.load` must have been called before the import."""
