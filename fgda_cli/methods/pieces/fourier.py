"""Swap of low frequencies ([FDA] eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor


def low_frequencies_of(source: Tensor, target: Tensor, share: float) -> Tensor:
    """Return the source with the target's amplitude where |u|, |v| <= b = floor(share * min(H, W)),
    and the source's phase everywhere.

    Float images `[B,3,H,W]` of one size, in and out; values may leave 0 to 255, as published. The
    window is symmetric (the public torch code's is not, and leaves an imaginary part).
    """
    if source.shape != target.shape:
        raise ValueError(
            f"source {tuple(source.shape)} and target {tuple(target.shape)} differ in shape"
        )
    height, width = source.shape[-2:]
    reach = int(share * min(height, width))
    rows = torch.fft.fftfreq(height, 1 / height, device=source.device).abs() <= reach
    columns = torch.fft.fftfreq(width, 1 / width, device=source.device).abs() <= reach
    low = rows[:, None] & columns[None]
    ours = torch.fft.fft2(source)
    theirs = torch.fft.fft2(target)
    amplitude = torch.where(low, theirs.abs(), ours.abs())
    return torch.fft.ifft2(torch.polar(amplitude, ours.angle())).real
