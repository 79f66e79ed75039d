"""Padding, truncation and the form of what encoding returns, with transformers' options."""

import operator
import warnings
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np

NO_LIMIT = int(1e30)
"""The `model_max_length` of a tokenizer without one, as transformers writes it."""
_LARGEST = int(1e20)  # lengths above it are none for transformers
_MOST = 2**63 - 1
_PADDING = ("longest", "max_length", "do_not_pad")
_TRUNCATION = ("longest_first", "only_first", "only_second", "do_not_truncate")
_SIDES = ("left", "right")

Row = tuple[list[int], list[int]]
"""The ids of a sequence, and for each which text of a pair it belongs to."""


class BatchEncoding(dict[str, Any]):
    """What encoding returns: a dict whose items are attributes, too (`.input_ids`)."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the encoding has no {name!r}; it has {', '.join(self)}") from None


@dataclass(frozen=True)
class Defaults:
    """What options fall back on: attributes of the tokenizer."""

    model_max_length: int
    padding_side: str
    truncation_side: str
    pad_token_id: int | None


@dataclass(frozen=True)
class Plan:
    """What to do with sequences, decided."""

    truncation: tuple[int, str, str] | None
    """The length, which text is cut, and on which side."""
    pad_id: int | None
    """What fills sequences up; None where nothing does."""
    pad_length: int | None
    """The least length they get; None stands for that of the longest."""
    pad_to_multiple_of: int
    padding_side: str

    def padded(self, rows: list[Row]) -> list[tuple[list[int], list[int], list[int]]]:
        """Ids, type ids and attention mask of each sequence, filled up."""
        length = 0
        if self.pad_id is not None:
            length = max((len(ids) for ids, _ in rows), default=0) if self.pad_length is None else self.pad_length
            length += -length % self.pad_to_multiple_of
        return [self._row(ids, types, length - len(ids)) for ids, types in rows]

    def _row(self, ids: list[int], types: list[int], missing: int) -> tuple[list[int], list[int], list[int]]:
        mask = [1] * len(ids)
        if missing <= 0 or self.pad_id is None:
            return ids, types, mask
        pad, zeros = [self.pad_id] * missing, [0] * missing
        if self.padding_side == "left":
            return pad + ids, zeros + types, zeros + mask
        return ids + pad, types + zeros, mask + zeros


def plan(
    defaults: Defaults,
    padding: bool | str,
    truncation: bool | str | None,
    max_length: SupportsIndex | None,
    pad_to_multiple_of: SupportsIndex | None,
    padding_side: str | None,
    verbose: bool,
) -> Plan:
    """Decides as transformers does what the options mean together. ValueError or TypeError names one that is wrong."""
    length = None if max_length is None else _count(max_length, "max_length", 0)
    multiple = 1 if pad_to_multiple_of is None else _count(pad_to_multiple_of, "pad_to_multiple_of", 1)
    if length is not None and padding is False and truncation is None:
        truncation = "longest_first"
    pads = _choice(padding, "padding", _PADDING, "longest", "do_not_pad")
    cuts = _choice(False if truncation is None else truncation, "truncation", _TRUNCATION, "longest_first")
    if flag(verbose, "verbose") and padding is True and length is not None and cuts == "do_not_truncate":
        warnings.warn(
            'max_length changes nothing: padding=True fills up to the longest; write padding="max_length", or '
            "truncation=True to cut what is longer",
            stacklevel=4,
        )
    side = _side(defaults.padding_side if padding_side is None else padding_side, "padding_side")
    if length is None:
        limit = _count(defaults.model_max_length, "model_max_length", 0, most=NO_LIMIT)
        if limit > _LARGEST:  # no length to fill up or cut to
            pads = "do_not_pad" if pads == "max_length" else pads
            cuts = "do_not_truncate"
        elif pads == "max_length" or cuts != "do_not_truncate":
            length = limit
    if pads != "do_not_pad" and defaults.pad_token_id is None:
        raise ValueError(
            f"padding is {padding!r}, but the tokenizer has no padding token; choose one of its tokens, for instance "
            "tokenizer.pad_token = tokenizer.eos_token"
        )
    if pads != "do_not_pad" and cuts != "do_not_truncate" and length is not None and length % multiple != 0:
        raise ValueError(
            f"max_length is {length}, which is no multiple of pad_to_multiple_of, {multiple}: sequences cannot be both "
            "padded and truncated to it"
        )
    truncates = length is not None and cuts != "do_not_truncate"
    return Plan(
        (length or 0, cuts, _side(defaults.truncation_side, "truncation_side")) if truncates else None,
        defaults.pad_token_id if pads != "do_not_pad" else None,
        length if pads == "max_length" else None,
        multiple,
        side,
    )


def batch(text: Any, text_pair: Any) -> tuple[list[tuple[str, str | None]], bool]:
    """The texts of one call, each with its pair if there is one, and whether the call was for several."""
    if isinstance(text, str):
        if not isinstance(text_pair, str | None):
            raise TypeError(f"text_pair must be a str, as text is one, not {type(text_pair).__name__}")
        return [(text, text_pair or None)], False
    items = _texts(text, "text")
    if text_pair is None:
        return [_with_pair(item, f"text[{index}]") for index, item in enumerate(items)], True
    pairs = _texts(text_pair, "text_pair")
    if len(items) != len(pairs):
        raise ValueError(f"text has {len(items)} texts, but text_pair has {len(pairs)}")
    for name, values in (("text", items), ("text_pair", pairs)):
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise TypeError(f"{name}[{index}] must be a str, not {type(value).__name__}")
    return list(zip(items, pairs, strict=True)), True


def arrays(rows: list[list[int]]) -> Any:
    """Rows as an array of int64, `[rows, length]`; rows of different lengths as an array of arrays."""
    if len({len(row) for row in rows}) <= 1:
        return np.asarray(rows, np.int64)
    ragged = np.empty(len(rows), object)
    for index, row in enumerate(rows):
        ragged[index] = np.asarray(row, np.int64)
    return ragged


def tensors(name: Any) -> bool:
    """Whether numpy arrays are asked for. ValueError for those of packages that are not here."""
    if name is None:
        return False
    if name == "np":
        return True
    raise ValueError(f'return_tensors is {name!r}; this package has no torch, tensorflow or jax, but "np" is there')


def flag(value: Any, name: str) -> bool:
    """True or False, numpy's included; TypeError for anything else."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def _count(value: Any, name: str, least: int, most: int = _MOST) -> int:
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if not least <= count <= most:
        raise ValueError(
            f"{name} is {count}; it must be at least {least}" + (f" and at most {most}" if count > most else "")
        )
    return count


def _choice(value: Any, name: str, names: tuple[str, ...], true: str, false: str | None = None) -> str:
    """A strategy by name; True and False stand for `true` and `false`, the last name unless given."""
    if isinstance(value, bool | np.bool_):
        return true if value else (false or names[-1])
    rule = f"{name} must be True, False or one of {', '.join(map(repr, names))}; got {value!r}"
    if not isinstance(value, str):
        raise TypeError(rule)
    if value not in names:
        raise ValueError(rule)
    return names[names.index(value)]


def _side(value: Any, name: str) -> str:
    if not isinstance(value, str) or value not in _SIDES:
        raise ValueError(f"{name} must be 'left' or 'right', got {value!r}")
    return str(value)


def _texts(value: Any, name: str) -> list[Any]:
    if isinstance(value, str | bytes | bytearray | Mapping | Set) or not isinstance(value, Iterable):
        rule = "a list of texts, as text is one" if name == "text_pair" else "a str or a list of texts"
        raise TypeError(f"{name} must be {rule}, not {type(value).__name__}")
    return list(value)


def _with_pair(item: Any, name: str) -> tuple[str, str | None]:
    if isinstance(item, str):
        return item, None
    if isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(text, str) for text in item):
        return item[0], item[1]
    raise TypeError(f"{name} must be a str or a pair of them, not {type(item).__name__}")
