"""Which sequences the next step computes: continuous batching, chunked prefill, preemption."""

from collections import deque
from typing import Any, NoReturn

from nanovllm._core import Scheduler
from nanovllm.engine.sequence import Sequence

__all__ = ["QueueSnapshot", "Scheduler"]


class QueueSnapshot(deque[Sequence]):
    """What a queue held when it was asked for: a deque that refuses changes, which the scheduler would not notice."""

    def __reduce__(self) -> tuple[Any, ...]:
        return deque, (list(self),)

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise TypeError("this is a copy of the scheduler's queue; Scheduler.add and Scheduler.preempt change it")

    append = appendleft = clear = extend = extendleft = insert = pop = popleft = remove = reverse = rotate = _refuse
    __delitem__ = __iadd__ = __imul__ = __setitem__ = _refuse
