"""A run's own record, `preset.yaml` in its folder: the resolved preset, and in `stage` what the run is. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

RECORD = "preset.yaml"
Value = TypeVar("Value")


def recorded(folder: Path, read: Callable[[Any], Value]) -> Value | None:
    """Return what `read` takes from a run's record; None when there is no run, or a record that lacks it or is damaged."""
    import yaml

    try:
        return read(yaml.safe_load((folder / RECORD).read_text()))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
