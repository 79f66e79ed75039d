"""nano-vLLM's `utils/loader.py`, into its Qwen3 in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from parity import standins
from parity.live.linear import rank_of

_NANO = standins.loaded()


def load_model(directory: Path, config: Any) -> dict[str, np.ndarray]:
    with rank_of(0, 1):
        model = _NANO["models.qwen3"].Qwen3ForCausalLM(config)
    with torch.no_grad():
        _NANO["utils.loader"].load_model(model, str(directory))
    return {name: parameter.detach().float().numpy() for name, parameter in model.named_parameters()}
