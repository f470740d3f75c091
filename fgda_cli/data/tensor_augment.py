"""Colour jitter and blur of images that are tensors already: for what a method mixes or views anew inside its step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def generator_of(*numbers: int) -> torch.Generator:
    """A generator that is a pure function of its numbers (seed, iteration, place): a resumed run draws the same."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number) % (2**63 - 1)
    return torch.Generator().manual_seed(seed)


def draw(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def strong_view(
    image: Tensor,
    generator: torch.Generator,
    jitter: float = 0.25,
    jitter_share: float = 0.8,
    blur: tuple[float, float] = (0.15, 1.15),
    blur_share: float = 0.5,
) -> Tensor:
    """Brightness, contrast, saturation and hue within ± `jitter` in random order, then a blur, each for a share of the images.

    RGB uint8 `[3,H,W]` in and out; the defaults are DACS's.
    """
    from torchvision.transforms.v2 import functional as F

    jittered, blurred = draw(generator) < jitter_share, draw(generator) < blur_share
    factors = [draw(generator, 1 - jitter, 1 + jitter) for _ in range(3)]
    hue, sigma = draw(generator, -jitter, jitter), draw(generator, *blur)
    steps = (
        lambda x: F.adjust_brightness(x, factors[0]),
        lambda x: F.adjust_contrast(x, factors[1]),
        lambda x: F.adjust_saturation(x, factors[2]),
        lambda x: F.adjust_hue(x, max(-0.5, min(0.5, hue))),
    )
    order = torch.randperm(4, generator=generator).tolist()
    if jittered and jitter:
        for index in order:
            image = steps[index](image)
    if blurred:
        radius = min(math.ceil(4 * sigma), (min(image.shape[-2:]) - 1) // 2)
        image = F.gaussian_blur(image, [2 * radius + 1] * 2, [sigma] * 2) if radius else image
    return image
