"""Random changes of a training image; every draw comes from the generator given, so that a resume repeats it."""

from __future__ import annotations

import cv2
import numpy as np


def colour_jitter(image: np.ndarray, strengths: tuple[float, float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation (factors 1 ± s) and hue (± s of the circle), as torchvision's ColorJitter.

    RGB uint8 `[H,W,3]` in and out.
    """
    brightness, contrast, saturation = (rng.uniform(max(0.0, 1 - s), 1 + s) for s in strengths[:3])
    hue = rng.uniform(-strengths[3], strengths[3])
    if not any(strengths):
        return image
    if strengths[3]:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + round(hue * 180)) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    # The three linear steps are one 3x4 matrix, applied in one pass.
    grey_weights = np.array([0.299, 0.587, 0.114], np.float32)
    mix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * grey_weights[None]
    mean = float(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0])
    matrix = np.zeros((3, 4), np.float32)
    matrix[:, :3] = brightness * contrast * mix
    matrix[:, 3] = (1 - contrast) * brightness * mean
    return cv2.transform(image, matrix)  # rounds and saturates to uint8


def random_flip(image: np.ndarray, label: np.ndarray | None, rng: np.random.Generator):
    """Mirror image and label together, half of the time."""
    if rng.random() < 0.5:
        return image, label
    return cv2.flip(image, 1), None if label is None else cv2.flip(label, 1)


def random_blur(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of a random strength up to `sigma` pixels, half of the time."""
    strength, chosen = rng.uniform(0.1, max(sigma, 0.1001)), rng.random() < 0.5
    return cv2.GaussianBlur(image, (0, 0), strength) if sigma and chosen else image
