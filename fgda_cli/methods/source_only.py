"""Source-only training (paper eq. 1)."""

from __future__ import annotations

from .base import Method


class SourceOnly(Method):
    """Cross-entropy on the labelled source; the target is never read."""

    uses_target = False


METHOD = SourceOnly
