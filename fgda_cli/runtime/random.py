"""Random numbers that are pure functions of a seed, a named stream and a position, so that a
resumed run draws the same.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class SampleStream(IntEnum):
    """Streams of the samples, numpy's generator of (seed, stream, position). The numbers belong to
    published results.
    """

    SOURCE = 1
    TARGET_ORDER = 2
    TARGET = 3
    LABELLED_ORDER = 4
    LABELLED = 5
    JOINED_TARGETS = 7
    LABELLED_SUBSET = 11


class StepStream(IntEnum):
    """Streams of what methods and networks draw in a step, torch's generator of (seed, stream,
    iteration, position).
    """

    PASTED_CLASSES = 1
    MIXED_IMAGES = 2
    # and 4: source and target
    BOTTLENECK = 3
    MASKS = 5
    MASKED_IMAGES = 6
    DETAIL_WINDOWS = 8
    DROPOUT = 9
    TRANSLATION = 10
    STRONG_SOURCE = 11
    WEAK_TARGET = 12
    DISTILLED_SOURCE = 13
    DISTILLED_TARGET = 14
    # and the numbers after it: two for each layer
    CYCADA_DROPOUT = 20


def generator_of(*numbers: int) -> torch.Generator:
    """Return torch's generator seeded by all of the numbers (seed, stream, iteration, position)."""
    import torch

    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number) % (2**63 - 1)
    return torch.Generator().manual_seed(seed)
