"""nano-vLLM's `engine/block_manager.py`."""

from parity import standins

Block = standins.loaded()["engine.block_manager"].Block
BlockManager = standins.loaded()["engine.block_manager"].BlockManager
