"""Which source image comes next: uniform, class-balanced ([FADA]) or rare-class ([DAFormer])."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Draw = Callable[[np.random.Generator], int]


def uniform(count: int) -> Draw:
    return lambda rng: int(rng.integers(count))


def by_class(counts: np.ndarray, probabilities: np.ndarray) -> Draw:
    """Draw a class, then uniformly an image that shows it; counts `[N,K]` are label pixels."""
    holders = [np.flatnonzero(counts[:, k]) for k in range(counts.shape[1])]
    present = np.array([len(holder) > 0 for holder in holders])
    weights = np.where(present, probabilities, 0.0)
    cumulative = np.cumsum(weights / weights.sum())

    def draw(rng: np.random.Generator) -> int:
        holder = holders[min(int(np.searchsorted(cumulative, rng.random())), len(holders) - 1)]
        return int(holder[rng.integers(len(holder))])

    return draw


def class_balanced(counts: np.ndarray) -> Draw:
    return by_class(counts, np.full(counts.shape[1], 1.0))


def rare_class(counts: np.ndarray, temperature: float = 0.01) -> Draw:
    """P(c) proportional to exp((1 - f_c) / T), f_c the share of class c among all label pixels."""
    share = counts.sum(axis=0) / max(counts.sum(), 1)
    scores = (1 - share) / temperature
    return by_class(counts, np.exp(scores - scores.max()))


def make(kind: str, counts: np.ndarray) -> Draw:
    """`uniform`, `class_balanced` or `rare_class` over the images of `counts` `[N,K]`."""
    if kind == "uniform":
        return uniform(len(counts))
    return {"class_balanced": class_balanced, "rare_class": rare_class}[kind](counts)
