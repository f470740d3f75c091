"""Random changes of a training image; every draw comes from the generator given, so that a resume
repeats it.
"""

from __future__ import annotations

import cv2
import numpy as np

from .classes import IGNORE_INDEX

GREY = np.array([0.299, 0.587, 0.114], np.float64)


def colour_jitter(
    image: np.ndarray, strengths: tuple[float, float, float, float], rng: np.random.Generator
) -> np.ndarray:
    """Change brightness, contrast, saturation (factors 1 ± s) and hue (± s of the circle) in random
    order, as torchvision's ColorJitter does.

    RGB uint8 `[H,W,3]` in and out.
    """
    factors = [rng.uniform(max(0.0, 1 - s), 1 + s) for s in strengths[:3]]
    hue = rng.uniform(-strengths[3], strengths[3])
    order = rng.permutation(4)
    if not any(strengths):
        return image
    if not strengths[3]:
        return _linear(image, [step for step in order if step < 3], factors)
    turn = int(np.flatnonzero(order == 3)[0])
    image = _linear(image, order[:turn], factors)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + round(hue * 180)) % 180
    return _linear(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), order[turn + 1 :], factors)


def _linear(image: np.ndarray, steps, factors: list[float]) -> np.ndarray:
    """Brightness (0), contrast (1) and saturation (2) in the order given, as one 3x4 matrix in one
    pass.
    """
    if not len(steps):
        return image
    matrix = np.eye(3)
    offset = np.zeros(3)
    mean = np.array(cv2.mean(image)[:3])
    for step in steps:
        factor = factors[step]
        if step == 2:
            mix = factor * np.eye(3) + (1 - factor) * GREY[None]
            matrix = mix @ matrix
            offset = mix @ offset
        # around the mean grey of the image as it is by then
        elif step == 1:
            grey = GREY @ (matrix @ mean + offset)
            matrix = factor * matrix
            offset = factor * offset + (1 - factor) * grey
        else:
            matrix = factor * matrix
            offset = factor * offset
    transform = np.concatenate([matrix, offset[:, None]], axis=1).astype(np.float32)
    # rounds and saturates to uint8
    return cv2.transform(image, transform)


def random_flip(rng: np.random.Generator, *planes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mirror an image and what belongs to it (label, masks) together, half of the time."""
    if rng.random() < 0.5:
        return planes
    return tuple(cv2.flip(plane, 1) for plane in planes)


def random_blur(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Blur an image by a Gaussian of random strength up to `sigma` pixels, half of the time."""
    strength = rng.uniform(0.1, max(sigma, 0.1001))
    is_blurred = rng.random() < 0.5
    return cv2.GaussianBlur(image, (0, 0), strength) if sigma and is_blurred else image


def scaled_size(
    size: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int]:
    """Return (width, height) times a factor drawn from [low, high], at least 8 pixels a side."""
    factor = rng.uniform(*scale) if scale != (1.0, 1.0) else 1.0
    return tuple(max(8, round(side * factor)) for side in size)


def random_box(
    size: tuple[int, int], crop: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Draw left and top of a crop (width, height) in an image of `size`; 0 along a side where the
    crop does not fit.
    """
    return tuple(
        int(rng.integers(max(0, whole - part) + 1)) for whole, part in zip(size, crop, strict=True)
    )


# Crops are drawn until one is accepted, 11 at most; if none is, the last is used.
CROPS = 11


def varied_box(
    label: np.ndarray,
    crop: tuple[int, int],
    rng: np.random.Generator,
    most: float = 1.0,
    wanted: int | None = None,
    least: int = 0,
    tries: int | None = None,
) -> tuple[int, int]:
    """Draw a `random_box` of a label `[H,W]` again while one class holds `most` or more of the
    crop's labelled pixels (mmsegmentation's cat_max_ratio), or while class `wanted` has no more
    than `least` pixels ([DAFormer]'s rare-class crops).

    With `tries`, so many crops are asked for both at once, and if none is accepted, one more is
    taken as it is ([VFMUDA++]).
    """
    size = (label.shape[1], label.shape[0])
    asks_for_class = wanted is not None and bool(least)
    if most == 1 and not asks_for_class:
        return random_box(size, crop, rng)
    nested = (CROPS if asks_for_class else 1, CROPS if most < 1 else 1)
    for _ in range(nested[0] if tries is None else tries):
        for _ in range(nested[1] if tries is None else 1):
            box = random_box(size, crop, rng)
            counts = np.bincount(cut(label, box, crop).ravel(), minlength=256)
            known = counts[:IGNORE_INDEX]
            is_varied = most == 1 or ((known > 0).sum() > 1 and known.max() < most * known.sum())
            if is_varied:
                break
        if (not asks_for_class or counts[wanted] > least) and (is_varied or tries is None):
            return box
    return box if tries is None else random_box(size, crop, rng)


def cut(
    pixels: np.ndarray, box: tuple[int, int], crop: tuple[int, int], fill: int = IGNORE_INDEX
) -> np.ndarray:
    """Cut the crop (width, height) at (left, top); pixels beyond the image become `fill`."""
    left, top = box
    visible = pixels[top : top + crop[1], left : left + crop[0]]
    below = crop[1] - visible.shape[0]
    right = crop[0] - visible.shape[1]
    if not (below or right):
        return visible
    return np.pad(
        visible,
        ((0, below), (0, right), *(((0, 0),) if pixels.ndim == 3 else ())),
        constant_values=fill,
    )
