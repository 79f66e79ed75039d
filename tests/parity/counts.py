"""How many examples and steps each parity suite has run."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings

EXAMPLES: Counter[str] = Counter()
STEPS: Counter[str] = Counter()


def add(suite: str, examples: int = 0, steps: int = 0) -> None:
    """Adds to the counts of a suite."""
    EXAMPLES[suite] += examples
    STEPS[suite] += steps


def table() -> list[str]:
    """The counts, one line for each suite."""
    lines = [f"{'suite':<20}{'examples':>10}{'steps':>10}"]
    lines += [f"{suite:<20}{EXAMPLES[suite]:>10}{STEPS[suite] or '':>10}" for suite in sorted(EXAMPLES)]
    return [*lines, f"{'total':<20}{EXAMPLES.total():>10}{STEPS.total():>10}"]


def examples(share: float = 1.0) -> settings:
    """Settings for a suite that draws this share of the profile's examples: of 100, or of 1,000 in `make parity`."""
    return settings(max_examples=max(1, round(settings().max_examples * share)), deadline=None)
