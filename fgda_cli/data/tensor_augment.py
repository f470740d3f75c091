"""Colour jitter and blur of images that are tensors already: for what a method mixes or views anew
inside its step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def draw(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def strong_view(
    image: Tensor,
    generator: torch.Generator,
    jitter: float | tuple[float, float, float, float] = 0.25,
    jitter_share: float = 0.8,
    blur: tuple[float, float] = (0.15, 1.15),
    blur_share: float = 0.5,
    kind: str = "kornia",
    grey_share: float = 0.0,
) -> Tensor:
    """Return the image after a colour jitter within ± `jitter`, without colour, and after a blur,
    each on a share of the images.

    `jitter`: one strength, or those of brightness, contrast, saturation and hue. RGB uint8
    `[3,H,W]` 0-255 in. The defaults are DACS's. `kind` says what the jitter computes: "kornia" as
    the published codes (float `[3,H,W]` 0-255 out, not rounded), "torchvision" as torchvision's
    ColorJitter (uint8 out).
    """
    from torchvision.transforms.v2 import functional as F

    jittered = draw(generator) < jitter_share
    blurred = draw(generator) < blur_share
    strengths = jitter if isinstance(jitter, tuple) else (jitter,) * 4
    factors = [draw(generator, 1 - strength, 1 + strength) for strength in strengths[:3]]
    hue = draw(generator, -strengths[3], strengths[3])
    sigma = draw(generator, *blur)
    order = torch.randperm(4, generator=generator).tolist()
    grey = bool(grey_share) and draw(generator) < grey_share
    image = image.float() if kind == "kornia" else image
    if jittered and any(strengths):
        change = jitter_kornia if kind == "kornia" else jitter_torchvision
        image = change(image, [*factors, max(-0.5, min(0.5, hue))], order)
    image = F.rgb_to_grayscale(image, num_output_channels=3) if grey else image
    if blurred:
        radius = min(math.ceil(4 * sigma), (min(image.shape[-2:]) - 1) // 2)
        image = F.gaussian_blur(image, [2 * radius + 1] * 2, [sigma] * 2) if radius else image
    return image


def jitter_torchvision(image: Tensor, factors: list[float], order: list[int]) -> Tensor:
    """Return the image after factors of brightness, contrast (around the mean grey), saturation
    (from grey) and a turn of hue.
    """
    from torchvision.transforms.v2 import functional as F

    steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for index in order:
        image = steps[index](image, factors[index])
    return image


def jitter_kornia(image: Tensor, factors: list[float], order: list[int]) -> Tensor:
    """Return the image after the colour jitter of kornia 0.5, which DACS, DAFormer, HRDA and MIC
    use: float 0-255 in and out.

    Brightness *adds* (factor - 1) x 255, contrast multiplies the pixel (not its distance from a
    mean), saturation multiplies HSV's, hue turns by `factors[3]` of the circle; each step is
    clipped to the range.
    """
    from torchvision.transforms.v2 import functional as F

    def saturate(x: Tensor) -> Tensor:
        value = x.amax(0, keepdim=True)
        least = x.amin(0, keepdim=True)
        # the factor at which HSV's saturation reaches 1
        most = value / (value - least).clamp(min=1e-6)
        return value - (value - x) * most.clamp(max=factors[2])

    steps = (
        lambda x: (x + (factors[0] - 1)).clamp(0, 1),
        lambda x: (x * factors[1]).clamp(0, 1),
        saturate,
        lambda x: F.adjust_hue(x, factors[3]),
    )
    image = image / 255
    for index in order:
        image = steps[index](image)
    return image * 255
