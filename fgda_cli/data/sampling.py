"""The choice of the next source image: uniform, class-balanced ([FADA]) or rare-class
([DAFormer]).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# pixels of the images for which [DAFormer] asks for 3000 pixels of a class
PUBLISHED_PIXELS = 1914 * 1052


@dataclass(frozen=True)
class Uniform:
    """Every image alike, or by its share."""

    count: int
    # running sum of the images' shares, 1 at the end
    cumulative: np.ndarray | None = None

    def pick(self, rng: np.random.Generator) -> tuple[int, None]:
        return self(rng), None

    def __call__(self, rng: np.random.Generator) -> int:
        if self.cumulative is None:
            return int(rng.integers(self.count))
        return min(
            int(np.searchsorted(self.cumulative, rng.random(), side="right")), self.count - 1
        )


class ByClass:
    """Draws a class k, then one of the images `holders[k]`, alike or by their shares; classes
    without an image are never drawn.

    `pick` tells the class too.
    """

    def __init__(
        self, holders: list[np.ndarray], probabilities: np.ndarray, shares: np.ndarray | None = None
    ):
        present = np.array([len(holder) > 0 for holder in holders])
        weights = np.where(present, probabilities, 0.0)
        self.holders = holders
        self.cumulative = np.cumsum(weights / weights.sum())
        self.within = (
            None if shares is None else [uniform(len(holder), shares[holder]) for holder in holders]
        )

    def pick(self, rng: np.random.Generator) -> tuple[int, int]:
        class_index = min(
            int(np.searchsorted(self.cumulative, rng.random())), len(self.holders) - 1
        )
        index = (
            rng.integers(len(self.holders[class_index]))
            if self.within is None
            else self.within[class_index](rng)
        )
        return int(self.holders[class_index][index]), class_index

    def __call__(self, rng: np.random.Generator) -> int:
        return self.pick(rng)[0]


# objects, not closures: they travel to worker processes that are spawned
Draw = Uniform | ByClass


def uniform(count: int, shares: np.ndarray | None = None) -> Uniform:
    return (
        Uniform(count)
        if shares is None or not count
        else Uniform(count, np.cumsum(shares / shares.sum()))
    )


def class_balanced(counts: np.ndarray, shares: np.ndarray | None = None) -> Draw:
    """Draw classes with P(c) proportional to 1 / log(1.01 + f_c), f_c the share of class c among
    all label pixels, as the public code weights classes; counts `[N,K]` are label pixels.
    """
    share = counts.sum(axis=0) / max(counts.sum(), 1)
    return ByClass(
        [np.flatnonzero(counts[:, k]) for k in range(counts.shape[1])],
        1 / np.log(1.01 + share),
        shares,
    )


def rare_class(
    counts: np.ndarray,
    temperature: float = 0.01,
    min_pixels: int = 3000,
    image_pixels: np.ndarray | None = None,
    shares: np.ndarray | None = None,
) -> Draw:
    """Draw classes with P(c) proportional to exp((1 - f_c) / T), from the images with more than
    `min_pixels` of class c.

    min_pixels holds for images of the published size; for others, whose pixels `image_pixels` `[N]`
    gives, it is scaled with the area. A class that no image shows so much of is drawn from all that
    show it.
    """
    share = counts.sum(axis=0) / max(counts.sum(), 1)
    scores = (1 - share) / temperature
    least = min_pixels * (1.0 if image_pixels is None else image_pixels / PUBLISHED_PIXELS)
    holders = []
    for k in range(counts.shape[1]):
        enough = np.flatnonzero(counts[:, k] > least)
        holders.append(enough if len(enough) else np.flatnonzero(counts[:, k]))
    return ByClass(holders, np.exp(scores - scores.max()), shares)


def make(
    name: str,
    counts: np.ndarray,
    min_pixels: int = 3000,
    image_pixels: np.ndarray | None = None,
    shares: np.ndarray | None = None,
    temperature: float = 0.01,
) -> Draw:
    """Return `uniform`, `class_balanced` or `rare_class` sampling of the images of `counts`
    `[N,K]`; `shares` `[N]` weight the images.
    """
    if name == "rare_class":
        return rare_class(counts, temperature, min_pixels, image_pixels=image_pixels, shares=shares)
    return (
        class_balanced(counts, shares) if name == "class_balanced" else uniform(len(counts), shares)
    )
