"""nano-vLLM's layers.

Each takes numpy arrays or CPU torch tensors of float32, float16 or bfloat16, and answers in kind. The arithmetic is the
engine's own, in float32, on the device that the keyword `device` names; a result is rounded once, to the type of the
argument it answers. Arguments are never written to, except for the caches of `store_kvcache` and `Attention`.

An array of another type is a TypeError; an unknown device, or a shape that does not fit, is a ValueError that names it.
"""
