"""Files of a run that are read without torch: `preset.yaml` (resolved preset; in `stage` the
identity of the run), its log.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from .text import BadText, parse_yaml, read_text

RECORD = "preset.yaml"
METRICS = "metrics.jsonl"
Value = TypeVar("Value")


def run_of(checkpoint: Path) -> Path | None:
    """Return the run of a checkpoint, RUN/checkpoints/NAME.pth; None for a file elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None


def recorded(folder: Path, read: Callable[[Any], Value]) -> Value | None:
    """Return what `read` takes from a run's record; None when there is no run, or a record that
    lacks it or is damaged.
    """
    try:
        return read(parse_yaml(read_text(folder / RECORD)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadText):
        return None


def measurements(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log that can be read; each has an `iteration`."""
    try:
        lines = (folder / METRICS).read_text(encoding="utf-8", errors="replace").splitlines()
        entries = []
    except OSError:
        return []
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            # cut short by a crash
            continue
        if isinstance(entry, dict) and isinstance(entry.get("iteration"), int):
            entries.append(entry)
    return entries
