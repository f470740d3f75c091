"""Predictions of an evaluation, kept on the disk until its pages are made: a page shows what was
scored, computed once.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from ..data.images import write_image
from ..data.store import Item
from ..inference.tta import Decision
from ..metrics import ConfusionMatrix
from ..runtime.distributed import ProcessGroup
from ..runtime.files import make_folder


class KeptPredictions:
    """The predictions of one checkpoint: train ids exactly, entropies in 256 steps."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, item: Item, decision: Decision, counts: ConfusionMatrix) -> None:
        write_image(self._path(item.name, "ids"), decision.train_ids, compression=1, sync=False)
        if decision.entropy is not None:
            entropy = np.round(decision.entropy * 255).astype(np.uint8)
            write_image(self._path(item.name, "entropy"), entropy, compression=1, sync=False)

    def __getitem__(self, name: str) -> dict[str, np.ndarray]:
        """Return `train_ids` uint8 and `entropy` float32, `[H,W]`, of an image by its name."""
        ids, entropy = (
            cv2.imdecode(np.fromfile(self._path(name, part), np.uint8), cv2.IMREAD_UNCHANGED)
            for part in ("ids", "entropy")
        )
        return {"train_ids": ids, "entropy": entropy.astype(np.float32) / 255}

    def _path(self, name: str, part: str) -> Path:
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:24]
        return self.folder / f"{digest}-{part}.png"


@contextmanager
def kept_below(report: Path | None, process_group: ProcessGroup) -> Iterator[Path | None]:
    """Yield a folder for the predictions of a report, which all processes share; it is deleted at
    the end.
    """
    if report is None:
        yield None
        return
    folder = report / ".fgda-predictions"

    def make() -> int:
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        return 0

    process_group.first_decides(make)
    try:
        yield folder
    finally:
        if process_group.is_first:
            shutil.rmtree(folder, ignore_errors=True)
