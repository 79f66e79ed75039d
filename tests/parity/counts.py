"""How many examples and steps each epoch's suite has run."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings

EXAMPLES: Counter[str] = Counter()
STEPS: Counter[str] = Counter()


def add(epoch: str, examples: int = 0, steps: int = 0) -> None:
    """Adds to an epoch's counts."""
    EXAMPLES[epoch] += examples
    STEPS[epoch] += steps


def table() -> list[str]:
    """The counts, one line an epoch."""
    lines = [f"{'epoch':<20}{'examples':>10}{'steps':>10}"]
    lines += [f"{epoch:<20}{EXAMPLES[epoch]:>10}{STEPS[epoch] or '':>10}" for epoch in sorted(EXAMPLES)]
    return [*lines, f"{'total':<20}{EXAMPLES.total():>10}{STEPS.total():>10}"]


def examples(share: float = 1.0) -> settings:
    """Settings for a suite that draws this share of the profile's examples: of 100, or of 1,000 in `make parity`."""
    return settings(max_examples=max(1, round(settings().max_examples * share)), deadline=None)
