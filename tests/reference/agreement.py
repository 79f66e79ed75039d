"""How far one model's logits are from a reference's: top-1 agreement, Kullback-Leibler divergence, and the gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Disagreement:
    """A position where the two models prefer different tokens."""

    position: int
    reference: int
    """The reference's first choice."""
    ours: int
    gap: float
    """Reference logit of its first choice minus that of its second: small where the choice is a toss-up."""


@dataclass(frozen=True)
class Agreement:
    """The comparison of two sets of logits over the same positions."""

    top1: float
    """Share of positions with the same first choice, in 0..1."""
    mean_kl: float
    """Mean of KL(reference || ours) over positions, in nats."""
    max_abs_diff: float
    disagreements: list[Disagreement]

    def __str__(self) -> str:
        lines = [f"top-1 {self.top1:.4%}, mean KL {self.mean_kl:.3e} nats, max |diff| {self.max_abs_diff:.3e}"]
        lines += [
            f"  position {d.position}: reference {d.reference}, ours {d.ours}, reference gap {d.gap:.4f}"
            for d in self.disagreements
        ]
        return "\n".join(lines)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def kl_divergence(reference: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """KL(reference || ours) of each row, in nats, from logits `[n, vocab]`.

    The sum is taken over p * (exp(d) - 1 - d) with d = log q - log p: every term is non-negative, so rounding cannot
    make a small divergence negative as the textbook sum of p * (log p - log q) can.
    """
    log_p, log_q = log_softmax(reference), log_softmax(ours)
    d = log_q - log_p
    p = np.exp(log_p)
    # For large d, p * exp(d) is q, which does not overflow.
    terms = np.where(d < 1, p * (np.expm1(np.minimum(d, 1)) - d), np.exp(log_q) - p - p * d)
    return terms.sum(axis=-1)


def top2_gap(logits: np.ndarray) -> np.ndarray:
    """Largest logit minus second largest, by row."""
    second, first = np.partition(logits, -2, axis=-1)[..., -2:].T
    return first - second


def compare(reference: np.ndarray, ours: np.ndarray) -> Agreement:
    """Compare logits `[n, vocab]` position by position."""
    if reference.shape != ours.shape or reference.ndim != 2 or len(reference) == 0:
        raise ValueError(f"logits must have one shape [n, vocab] with n > 0, got {reference.shape} and {ours.shape}")
    disagreements = choice_disagreements(reference, ours.argmax(axis=-1).tolist())
    return Agreement(
        top1=1.0 - len(disagreements) / len(reference),
        mean_kl=float(kl_divergence(reference, ours).mean()),
        max_abs_diff=float(np.abs(reference - ours).max()),
        disagreements=disagreements,
    )


def choice_disagreements(reference: np.ndarray, tokens: Sequence[int]) -> list[Disagreement]:
    """Positions where `tokens[i]` is not the first choice of `reference[i]`.

    Checks a greedy continuation with a single reference forward pass: give the logits that predict each of its tokens.
    """
    if len(reference) != len(tokens):
        raise ValueError(f"{len(reference)} rows of logits for {len(tokens)} tokens")
    first, gap = reference.argmax(axis=-1), top2_gap(reference)
    return [
        Disagreement(position=i, reference=int(first[i]), ours=int(token), gap=float(gap[i]))
        for i, token in enumerate(tokens)
        if first[i] != token
    ]
