"""nano-vLLM at commit bb823b3, modelled module for module in plain Python and numpy: what it does, not how.

Parity suites take these modules from the fixture `reference`, which can give nano-vLLM itself instead.
"""
