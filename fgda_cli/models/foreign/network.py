"""The result of reading a published checkpoint."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from torch import Tensor

from ...data.classes import CITYSCAPES, NOT_IN_SYNTHIA16, ClassSet, named_classes
from ...data.geometry import InputRule
from ...runtime.errors import FgdaError


class Foreign(NamedTuple):
    """A published network in our terms."""

    kind: str
    state: dict[str, Tensor]
    # keys of the preset's `model` section
    model_keys: dict[str, Any]
    classes: ClassSet
    iteration: int | None
    # decisions that the user is told
    notes: list[str]
    # The size at which its authors evaluate. None: the preset's, by bicubic, as most do.
    rule: InputRule | None = None


def classes_of(state: dict[str, Tensor], key: str) -> ClassSet:
    """Return the classes by the outputs of the head's weight or bias `key`: Cityscapes' 19, or the
    16 shared with SYNTHIA.
    """
    count = len(state.get(key, ()))
    kept = [name for name in CITYSCAPES.names if name not in NOT_IN_SYNTHIA16]
    if count not in (len(CITYSCAPES), len(kept)):
        raise FgdaError(f"a head of {count} classes: 19 or 16 are known")
    return CITYSCAPES if count == len(CITYSCAPES) else named_classes(kept)


def renamed(key: str, names: tuple[tuple[str, str], ...]) -> str | None:
    """Rename a key by the first of (pattern, ours) that its beginning matches; None when none
    does.
    """
    for theirs, ours in names:
        name, replaced = re.subn(f"^{theirs}", ours, key)
        if replaced:
            return name
    return None


def blocks(state: dict[str, Tensor], layer: str) -> int:
    """Return how many blocks a ResNet layer has; `layer` is the key prefix, e.g. `layer3.`."""
    return len({key.removeprefix(layer).split(".")[0] for key in state if key.startswith(layer)})
