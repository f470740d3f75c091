"""Source-only training (paper eq. 1)."""

from __future__ import annotations

from .base import EVERY, Method


class SourceOnly(Method):
    """Cross-entropy on the labelled source; the target is never read."""

    supports = EVERY
    uses_target = False


METHOD = SourceOnly
