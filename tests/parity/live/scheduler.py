"""nano-vLLM's `engine/scheduler.py`."""

from parity import standins

Scheduler = standins.loaded()["engine.scheduler"].Scheduler
