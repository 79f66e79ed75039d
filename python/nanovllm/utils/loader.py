"""Loads a checkpoint's tensors into a model's parameters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from nanovllm import _core
from nanovllm.exceptions import ModelFormatError

Packed = Mapping[str, tuple[str, Any]]
"""By the name of a stored module: the model's module that holds it, and the id of its shard there."""


def default_weight_loader(param: Any, loaded_weight: Any) -> None:
    """Replaces all elements by `loaded_weight`. Raises ValueError where the shape is another."""
    param.data = loaded_weight


def load_model(model: Any, path: str | os.PathLike[str]) -> None:
    """Loads the safetensors files of a directory, or one file, into the parameters of `model`.

    A stored tensor belongs to the parameter of its name; if part of the name, between dots, is a key of the model's
    `packed_modules_mapping`, then to the module named there, whose shard is handed to the loader. Each parameter is
    loaded by its `weight_loader`, or by `default_weight_loader` if it has none. A tied parameter may be stored under
    any of its names; of several, its first one counts.

    Raises ModelNotFoundError if a file is missing; ModelFormatError, before anything is loaded, if the files lack
    tensors or have some that the model does not know (the error names them all); and ModelFormatError when a tensor
    does not fit its parameter.
    """
    files = _core.SafeTensors(path)
    stored = set(files.tensors)
    expected = _expected(model, getattr(model, "packed_modules_mapping", {}))
    sources = {name: name for name in expected if name in stored}
    for alias in stored - expected.keys():
        name = _tied(model, alias, expected)
        if name is not None:
            sources.setdefault(name, alias)
            stored.discard(alias)
    # Old transformers stored this buffer; it follows from the configuration.
    unknown = sorted(name for name in stored - expected.keys() if not name.endswith("rotary_emb.inv_freq"))
    missing = sorted(expected.keys() - sources.keys())
    if missing:
        raise ModelFormatError(f"{os.fspath(path)}: tensors missing from the checkpoint: {', '.join(missing)}")
    if unknown:
        raise ModelFormatError(
            f"{os.fspath(path)}: tensors in the checkpoint that the model does not have: {', '.join(unknown)}"
        )
    for name, (param, *shard) in expected.items():
        loader = getattr(param, "weight_loader", default_weight_loader)
        try:
            loader(param, files.tensor(sources[name]), *shard)
        except (TypeError, ValueError) as error:
            raise ModelFormatError(f"{os.fspath(path)}: tensor {sources[name]!r}: {error}") from error


def _expected(model: Any, packed: Packed) -> dict[str, tuple[Any, ...]]:
    """The stored tensors that make up the model: for each, its parameter, and its shard if there are several."""
    expected: dict[str, tuple[Any, ...]] = {}
    for name, param in model.named_parameters():
        shards = {_renamed(name, module, key): shard for key, (module, shard) in packed.items()}
        shards.pop(None, None)
        if shards:
            expected |= {stored: (param, shard) for stored, shard in shards.items() if stored is not None}
        else:
            expected[name] = (param,)
    return expected


def _renamed(name: str, old: str, new: str) -> str | None:
    """`name` with the part `old`, between dots, replaced; None if it has none."""
    dotted = f".{name}."
    return dotted.replace(f".{old}.", f".{new}.")[1:-1] if f".{old}." in dotted else None


def _tied(model: Any, alias: str, expected: Mapping[str, tuple[Any, ...]]) -> str | None:
    """The expected name of the parameter that is also called `alias`."""
    try:
        param = model.get_parameter(alias)
    except AttributeError:
        return None
    return next((name for name, (other, *_) in expected.items() if other is param), None)
