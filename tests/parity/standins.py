"""Runs nano-vLLM's own sources, unmodified, on a CPU without flash_attn, triton or CUDA.

They say `import nanovllm`, as ours do. So they are imported while `sys.modules` and `sys.path` are swapped, and their
modules are kept here afterwards: the two packages never see each other. What they ask of the GPU is answered by
stand-ins in their modules' namespaces; torch itself stays as it is, but for `Tensor.cuda`, which is the identity.
"""

from __future__ import annotations

import atexit
import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed

from parity import standin_flash_attn, standin_triton

NAMES = (
    "config",
    "engine.block_manager",
    "engine.llm_engine",
    "engine.model_runner",
    "engine.scheduler",
    "engine.sequence",
    "layers.activation",
    "layers.attention",
    "layers.embed_head",
    "layers.layernorm",
    "layers.linear",
    "layers.rotary_embedding",
    "layers.sampler",
    "llm",
    "models.qwen3",
    "sampling_params",
    "utils.context",
    "utils.loader",
)


class Facade:
    """A module with some of its names answered otherwise."""

    def __init__(self, module: ModuleType, **answers: Any) -> None:
        self._module = module
        vars(self).update(answers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class NanoVLLM:
    """A checkout's modules: `nano["engine.scheduler"].Scheduler`."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.memory_bytes = 64 << 20
        """What the GPU says it has free when a KV cache is allocated."""
        self.rank, self.world_size = 0, 1
        """What layers are told of tensor parallelism when they are made."""
        self._modules: dict[str, ModuleType] = {}
        with self.swapped(), _kernel_stand_ins(), patch("torch.compile", lambda function: function):
            for name in NAMES:
                importlib.import_module(f"nanovllm.{name}")
        self._stand_in()

    def __getitem__(self, name: str) -> ModuleType:
        return self._modules[f"nanovllm.{name}"]

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """While this is open, `nanovllm` means theirs: for imports, and for pickle, which looks classes up by name."""

        def mine(name: str) -> bool:
            return name == "nanovllm" or name.startswith("nanovllm.")

        ours = {name: sys.modules.pop(name) for name in list(sys.modules) if mine(name)}
        sys.modules.update(self._modules)
        sys.path.insert(0, str(self.checkout))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's and transformers' own
                yield
        finally:
            sys.path.remove(str(self.checkout))
            self._modules = {name: sys.modules.pop(name) for name in list(sys.modules) if mine(name)}
            sys.modules.update(ours)

    def _stand_in(self) -> None:
        torch.Tensor.cuda = lambda tensor, **_: tensor
        cuda = Facade(
            torch.cuda,
            set_device=lambda _: None,
            empty_cache=lambda: None,
            synchronize=lambda: None,
            reset_peak_memory_stats=lambda: None,
            mem_get_info=lambda: (self.memory_bytes, self.memory_bytes),
            memory_stats=lambda: {"allocated_bytes.all.peak": 0, "allocated_bytes.all.current": 0},
        )
        dist = Facade(
            torch.distributed,
            init_process_group=_init_process_group,
            get_rank=lambda: self.rank,
            get_world_size=lambda: self.world_size,
            # Ranks are run one after another; a suite adds up or joins what they give.
            all_reduce=lambda _: None,
            gather=lambda tensor, into, _root: into and into[self.rank].copy_(tensor),
        )
        fake = Facade(torch, cuda=cuda, tensor=_tensor, set_default_device=lambda _: None, distributed=dist)
        for module in self._modules.values():
            for name, answer in (("torch", fake), ("dist", dist)):
                if hasattr(module, name):
                    setattr(module, name, answer)

    def llm(self, model: Path, memory_bytes: int, **options: Any) -> Any:
        """nano-vLLM's LLM over a bfloat16 checkpoint, with this much memory for its KV cache."""
        self.memory_bytes = memory_bytes
        with self.swapped():
            return self["llm"].LLM(str(model), enforce_eager=True, **options)

    @staticmethod
    def close(llm: Any) -> None:
        """Ends an LLM now rather than when Python exits."""
        llm.exit()
        atexit.unregister(llm.exit)


@contextmanager
def _kernel_stand_ins() -> Iterator[None]:
    stand_ins = standin_flash_attn.modules() | standin_triton.modules()
    real = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
        sys.modules.update(real)


def _init_process_group(_backend: str, _address: str, world_size: int, rank: int) -> None:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, world_size=world_size, rank=rank)


def _tensor(data: Any, dtype: torch.dtype | None = None, pin_memory: bool = False) -> torch.Tensor:
    del pin_memory  # which only helps copies to a GPU
    return torch.tensor(data, dtype=dtype)


_STATE = SimpleNamespace(nano=None)


def load(checkout: Path) -> NanoVLLM:
    """Imports nano-vLLM from a checkout, once."""
    if _STATE.nano is None:
        if not (checkout / "nanovllm" / "engine" / "scheduler.py").is_file():
            raise FileNotFoundError(f"{checkout} is no checkout of nano-vLLM")
        _STATE.nano = NanoVLLM(checkout)
    return loaded()


def loaded() -> NanoVLLM:
    """The modules that `load` has imported."""
    if _STATE.nano is None:
        raise RuntimeError("nano-vLLM has not been loaded")
    return _STATE.nano
