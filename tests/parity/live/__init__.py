"""nano-vLLM itself behind the names of `reference.nano`.

A module here has the functions and classes of the one of the same name there, with the same arguments and results, so
what they do is documented there. `standins.load` must have been called before one is imported.
"""
