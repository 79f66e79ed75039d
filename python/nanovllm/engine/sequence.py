"""A sequence holds the tokens of one request, and says which blocks of the KV cache have its keys and values."""

from collections.abc import Iterable, Iterator
from enum import Enum, auto
from functools import wraps
from itertools import count
from typing import Any, Protocol, SupportsIndex

from nanovllm import _core
from nanovllm.sampling_params import SamplingParams

__all__ = ["Sequence", "SequenceStatus"]


class SequenceStatus(Enum):
    """How far a sequence has come."""

    WAITING = auto()
    """Not prefilled yet, or only in part, or preempted."""
    RUNNING = auto()
    """Prefilled; decoding."""
    FINISHED = auto()
    """Done; it holds no blocks."""


class SamplingOptions(Protocol):
    """The attributes that sampling parameters must have; the other fields of `SamplingParams` have defaults."""

    @property
    def temperature(self) -> float: ...
    @property
    def max_tokens(self) -> int | None: ...
    @property
    def ignore_eos(self) -> bool: ...


_DEFAULT = SamplingParams()


class BlockTable(list[int]):
    """A copy of a sequence's block table whose changes are assigned back to the sequence."""

    __slots__ = ("_seq",)

    def __init__(self, seq: _core.Sequence, block_ids: Iterable[int]) -> None:
        super().__init__(block_ids)
        self._seq = seq

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # a copy belongs to no sequence


def _writing(name: str) -> Any:
    """The method `name` of a list, which then also assigns the changed list to the sequence."""
    change = getattr(list, name)

    @wraps(change)
    def method(self: BlockTable, *args: Any, **kwargs: Any) -> Any:
        result = change(self, *args, **kwargs)
        self._seq.block_table = self
        return result

    return method


for _name in ("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"):
    setattr(BlockTable, _name, _writing(_name))
for _name in ("__delitem__", "__iadd__", "__imul__", "__setitem__"):
    setattr(BlockTable, _name, _writing(_name))


class Sequence(_core.Sequence):
    """A request: prompt and completion, sampling parameters, and its place in the KV cache.

    It is a handle on the engine's own sequence. The handle owns the data until a scheduler takes it, and again once the
    sequence is finished. While a scheduler has it, only `temperature`, `max_tokens` and `ignore_eos` can be set; before
    that, `status`, `is_prefill`, `block_table` and the counts of cached and scheduled tokens can be set too. Lists are
    copies. Two sequences are equal if they are the same object, and a scheduler hands out the object that was added.

    Pickling carries what another process needs to compute a step: all tokens of a sequence in prefill, else the newest
    alone, and neither id nor status nor sampling parameters.

    Args:
        token_ids: The prompt, any iterable of integers.
        sampling_params: An object with `temperature`, `max_tokens`, `ignore_eos` and perhaps `seed`.

    Raises:
        ValueError: The prompt is empty, or a number is outside its limits.
        TypeError: A value is of another type.
    """

    block_size: int = 256
    """Tokens in a block of the KV cache; an engine sets it to its own. A sequence in a scheduler keeps the pool's."""
    counter: Iterator[int] = count()
    """Gives each new sequence its id, requests to an engine included."""

    def __init__(self, token_ids: Iterable[SupportsIndex], sampling_params: SamplingOptions = _DEFAULT) -> None:
        self._init(next(Sequence.counter), token_ids, sampling_params, self.block_size)

    @property
    def block_table(self) -> list[int]:
        """The ids of its blocks in order. The list is a copy whose changes are assigned back.

        Raises AttributeError for a change while a scheduler has the sequence.
        """
        return BlockTable(self, super().block_table)

    @block_table.setter
    def block_table(self, block_ids: Iterable[SupportsIndex]) -> None:
        _core.Sequence.block_table.__set__(self, block_ids)  # type: ignore[attr-defined]

    @property
    def status(self) -> SequenceStatus:
        """How far it has come. AttributeError if it is set while a scheduler has the sequence."""
        return SequenceStatus(self._status)

    @status.setter
    def status(self, value: SequenceStatus) -> None:
        self._status = SequenceStatus(value).value
