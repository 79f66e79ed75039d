"""What `generate` shows while it works: on a terminal or in a notebook a bar in tokens, else one line at the end."""

import sys
import warnings
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from tqdm.asyncio import tqdm_asyncio

from nanovllm._core import FinishedSequence

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # in a notebook without ipywidgets, where a line at the end has to do
    from tqdm.auto import tqdm

_IS_NOTEBOOK = tqdm is not tqdm_asyncio
"""Whether tqdm draws with a notebook's widgets; standard error is no terminal there."""


class Progress:
    """The progress of a call, as a context manager. Nothing is shown before the first report.

    Args:
        requests: What the call has submitted: `(seq_ids, token_ids, sampling_params, priority)` each; without params
            where the prompt is all that is computed.
        max_model_len: The most tokens of prompt and answer together.
    """

    def __init__(self, requests: Sequence[tuple[list[int], Any, Any, int]], max_model_len: int) -> None:
        self._requests = requests
        self._max_model_len = max_model_len
        self._budgets: dict[int, int] = {}  # the most tokens of each request, prompt and answer
        self._start = perf_counter()
        self._num_finished = self._num_prefilled = self._num_generated = 0
        self._unspent = 0  # of the budgets of the finished ones
        self._speeds = {"Prefill": 0.0, "Decode": 0.0}
        self._bar: tqdm[Any] | None = None
        self._total = self._shown = 0  # tokens of the bar

    def report(
        self,
        finished: Sequence[FinishedSequence],
        num_prefilled: int,
        num_generated: int,
        prefill_speed: float | None,
        decode_speed: float | None,
    ) -> None:
        """Shows how far the engine has come, by what `Call.results` reports."""
        if not self._budgets:
            self._begin()
        self._num_finished += len(finished)
        self._num_prefilled, self._num_generated = num_prefilled, num_generated
        for seq in finished:
            computed = seq.num_prompt_tokens - seq.num_cached_tokens + len(seq.token_ids)
            self._unspent += self._budgets[seq.seq_id] - computed
        for name, speed in (("Prefill", prefill_speed), ("Decode", decode_speed)):
            if speed is not None:
                self._speeds[name] = speed
        if self._bar is not None:
            self._bar.set_postfix_str(self._state(), refresh=False)
            # What was computed twice and what other callers' requests took counts too, so the sum may be too large: the
            # bar is not full before everything has finished.
            self._show(min(num_prefilled + num_generated + self._unspent, self._total - 1))

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            if kind is None:
                self._show(self._total)
            self._bar.close()
        elif kind is None and self._budgets and sys.stderr is not None:
            seconds = perf_counter() - self._start
            tokens = f"{self._num_prefilled} prompt tokens, {self._num_generated} new tokens in {seconds:.1f} s"
            sys.stderr.write(f"Generating: {self._state()}; {tokens}\n")

    def _begin(self) -> None:
        for seq_ids, token_ids, params, _ in self._requests:  # all of them are checked by now
            max_tokens = 0 if params is None else params.max_tokens
            most = self._max_model_len if max_tokens is None else len(token_ids) + max_tokens
            self._budgets.update(dict.fromkeys(seq_ids, min(most, self._max_model_len)))
        if sys.stderr is not None and (_IS_NOTEBOOK or sys.stderr.isatty()):
            self._total = sum(self._budgets.values())
            self._bar = tqdm(total=self._total, desc="Generating", unit="tok", unit_scale=True, dynamic_ncols=True)

    def _show(self, num_tokens: int) -> None:
        """Moves the bar to a number of tokens, but never back."""
        if self._bar is not None and num_tokens > self._shown:
            self._bar.update(num_tokens - self._shown)
            self._shown = num_tokens

    def _state(self) -> str:
        speeds = ", ".join(f"{name}={int(speed)}tok/s" for name, speed in self._speeds.items())
        return f"{self._num_finished}/{len(self._budgets)} prompts, {speeds}"
