"""What nano-vLLM's layers have from torch's `nn.Module`: modules in modules, and parameters by dotted names."""

from collections.abc import Callable, Iterator
from typing import Any

from nanovllm import _core


class Parameter(_core.Parameter):
    """A weight or a bias of one rank. It is made of stored tensors (three for q, k and v), which are loaded one by one.

    `shape` is that of the rank's part. `data` copies all elements out as a numpy array that cannot be written to
    (assign to `data` instead), in the type they were loaded in: nano-vLLM converts to its default type, this does not.
    """

    weight_loader: Callable[..., None]
    """`weight_loader(param, loaded_weight)`, for a packed module with the shard's id as a third argument."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Copies all elements out as `data` does. ValueError where `copy` is False."""
        if copy is False:
            raise ValueError("a parameter is always copied out")
        return self.data if dtype is None else self.data.astype(dtype)

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape})"


class Module:
    """A layer, or a model of layers: attributes that are parameters, modules and lists of modules are its parts."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the module's output. Each kind of module defines it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls `forward`."""
        return self.forward(*args, **kwargs)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """The module itself and all modules in it, each once, with dotted names."""
        yield from _named_modules(self, prefix, set())

    def modules(self) -> Iterator[Any]:
        """The module itself and all modules in it."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, _core.Parameter]]:
        """All parameters with dotted names, each once: a tied one has the first of its names."""
        seen = set()
        for path, module in self.named_modules(prefix):
            for name, value in vars(module).items():
                if isinstance(value, _core.Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield _join(path, name), value

    def parameters(self) -> Iterator[_core.Parameter]:
        """All parameters, each once."""
        for _, parameter in self.named_parameters():
            yield parameter

    def get_submodule(self, target: str) -> Any:
        """The module of a dotted name. Raises AttributeError that names the part that is missing."""
        module: Any = self
        for part in filter(None, target.split(".")):
            if isinstance(module, ModuleList):
                if not part.isdecimal() or int(part) >= len(module):
                    raise AttributeError(f"{target}: there is no module {part} among {len(module)}")
                module = module[int(part)]
            else:
                child = vars(module).get(part)
                if not _is_module(child):
                    raise AttributeError(f"{target}: {type(module).__name__} has no module {part!r}")
                module = child
        return module

    def get_parameter(self, target: str) -> _core.Parameter:
        """The parameter of a dotted name. Raises AttributeError if there is none."""
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        parameter = vars(module).get(name)
        if not isinstance(parameter, _core.Parameter):
            raise AttributeError(f"{target}: {type(module).__name__} has no parameter {name!r}")
        return parameter


class ModuleList(list[Any]):
    """Modules in order, whose names are their numbers."""


def _is_module(value: object) -> bool:
    return isinstance(value, ModuleList) or (hasattr(value, "forward") and hasattr(value, "__dict__"))


def _named_modules(module: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    yield path, module
    children = ((str(i), m) for i, m in enumerate(module)) if isinstance(module, ModuleList) else vars(module).items()
    for name, child in children:
        if not name.startswith("_") and _is_module(child):
            yield from _named_modules(child, _join(path, name), seen)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
