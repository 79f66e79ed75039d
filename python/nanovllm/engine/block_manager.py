"""The books of the KV cache: which blocks are free, who shares the others, and which hold a known prefix."""

from nanovllm._core import Block, BlockManager

__all__ = ["Block", "BlockManager"]
