"""A stand-in for triton: runs a kernel's Python source as it is, one program after another, on CPU tensors.

It knows what nano-vLLM's kernel needs: pointers that are tensors, offsets from `arange`, loads and stores.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch


class Pointer:
    """The address of elements of a tensor's memory: base plus an offset or a vector of offsets."""

    def __init__(self, memory: torch.Tensor, offsets: Any = 0) -> None:
        self.memory, self.offsets = memory, offsets

    def __add__(self, offsets: Any) -> Pointer:
        return Pointer(self.memory, self.offsets + offsets)


def pointer(tensor: torch.Tensor) -> Pointer:
    """The address of a tensor's first element; what lies behind it is all memory the tensor is a view of."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
    return Pointer(tensor.as_strided((size,), (1,)))


class Kernel:
    """`kernel[grid](*arguments)`, for a grid of one dimension."""

    def __init__(self, language: ModuleType, source: Callable[..., None]) -> None:
        self.language, self.source = language, source

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        def launch(*arguments: Any) -> None:
            arguments = tuple(pointer(a) if isinstance(a, torch.Tensor) else a for a in arguments)
            for program in range(*grid):
                self.language.program_id = lambda _axis, program=program: program
                self.source(*arguments)

        return launch


def modules() -> dict[str, ModuleType]:
    """`triton` and `triton.language`, to be put into `sys.modules`."""
    triton, language = ModuleType("triton"), ModuleType("triton.language")
    language.constexpr = int
    language.arange = torch.arange
    language.load = lambda address: address.memory[address.offsets]
    language.store = lambda address, value: address.memory.__setitem__(address.offsets, value)
    triton.language = language
    triton.jit = lambda source: Kernel(language, source)
    return {"triton": triton, "triton.language": language}
