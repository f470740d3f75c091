"""Training batches. Sample `position` is a pure function of (seed, stage, position): a resume needs no data state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..runtime.errors import FgdaError
from . import augment, sampling
from .classes import IGNORE_INDEX
from .store import PreparedDataset


class Batch(NamedTuple):
    """Images RGB uint8 `[B,3,H,W]`, source train ids uint8 `[B,H,W]`; `target` None in source-only training."""

    source: Tensor
    labels: Tensor
    target: Tensor | None

    def to(self, device: torch.device) -> Batch:
        return Batch(*(None if t is None else t.to(device, non_blocking=True) for t in self))


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed; the target is only mirrored."""

    flip: bool = True
    colour_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    blur: float = 0.0


class PairedSamples(Dataset):
    """Source image + label and, when there is a target, an unlabelled target image, by position."""

    def __init__(
        self,
        source: PreparedDataset,
        target: PreparedDataset | None,
        sizes: tuple[tuple[int, int], tuple[int, int]],
        seed: int,
        augmentation: Augmentation,
        sampler: str = "uniform",
        untrained: tuple[int, ...] = (),
    ):
        self.source, self.target, self.sizes, self.seed = source, target, sizes, seed
        self.augmentation, self.untrained = augmentation, np.array(untrained, np.uint8)
        self.source_items = source.items("train", labelled=True)
        self.target_items = target.items("train") if target else []
        counts = np.array([item.counts for item in self.source_items], np.float64)
        if len(untrained):
            counts[:, list(untrained)] = 0
        self.draw_source = sampling.make(sampler, counts)

    def __len__(self) -> int:
        return len(self.source_items)

    def __getitem__(self, position: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng([self.seed, 1, position])
        item = self.source_items[self.draw_source(rng)]
        image = resize(self.source.image(item), self.sizes[0], cv2.INTER_LINEAR)
        label = resize(self.source.label(item), self.sizes[0], cv2.INTER_NEAREST)
        if len(self.untrained):
            label = np.where(np.isin(label, self.untrained), np.uint8(IGNORE_INDEX), label)
        image = augment.colour_jitter(image, self.augmentation.colour_jitter, rng)
        image = augment.random_blur(image, self.augmentation.blur, rng)
        if self.augmentation.flip:
            image, label = augment.random_flip(image, label, rng)
        sample = (to_tensor(image), torch.from_numpy(np.ascontiguousarray(label)))
        return sample if self.target is None else (*sample, self._target(position))

    def _target(self, position: int) -> Tensor:
        """Targets come in shuffled epochs, so that each image is seen equally often."""
        epoch, place = divmod(position, len(self.target_items))
        order = np.random.default_rng([self.seed, 2, epoch]).permutation(len(self.target_items))
        image = resize(self.target.image(self.target_items[order[place]]), self.sizes[1], cv2.INTER_LINEAR)
        if self.augmentation.flip:
            image, _ = augment.random_flip(image, None, np.random.default_rng([self.seed, 3, position]))
        return to_tensor(image)

    def target_images(self, rank: int = 0, processes: int = 1) -> Iterator[Tensor]:
        """Every target training image of this process once, unchanged, uint8 `[3,H,W]`: what a self-training round predicts."""
        for item in self.target_items[rank::processes]:
            yield to_tensor(resize(self.target.image(item), self.sizes[1], cv2.INTER_LINEAR))


def resize(pixels: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """To (width, height); nothing is done, nor copied, when it has that size."""
    if (pixels.shape[1], pixels.shape[0]) == tuple(size):
        return pixels
    shrinking = interpolation == cv2.INTER_LINEAR and pixels.shape[1] > size[0]
    return cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA if shrinking else interpolation)


def to_tensor(image: np.ndarray) -> Tensor:
    """RGB uint8 `[H,W,3]` array to `[3,H,W]` tensor."""
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(np.ascontiguousarray(image), list(planes))  # three times as fast as a transposed copy
    return torch.from_numpy(planes)


def _quiet_worker(_: int) -> None:
    """Workers leave Ctrl-C to the main process, and do not fight it for cores."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)


@dataclass(frozen=True)
class Positions:
    """The positions of each batch of iterations first .. last-1: process `rank`'s even share of `batch_size`."""

    first: int
    last: int
    batch_size: int
    rank: int = 0
    processes: int = 1

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[range]:
        share = self.batch_size // self.processes
        for iteration in range(self.first, self.last):
            start = iteration * self.batch_size + self.rank * share
            yield range(start, start + share)


def batches(samples: PairedSamples, positions: Positions, workers: int, pin: bool) -> Iterator[Batch]:
    """A batch for each entry of `positions`, read ahead by `workers` processes."""
    loader = DataLoader(
        samples, batch_sampler=positions, num_workers=workers, worker_init_fn=_quiet_worker, pin_memory=pin,
        persistent_workers=False, generator=torch.Generator(),  # or each start of it, as in a resume, moves torch's own
    )  # fmt: skip
    for tensors in loader:
        yield Batch(*tensors) if len(tensors) == 3 else Batch(*tensors, None)


@contextmanager
def watched() -> Iterator[None]:
    """Around whatever uses `batches`: torch tells of a killed worker by an error in the midst of any other work.

    Raises FgdaError in its place.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise FgdaError("a process that reads images was killed (out of memory?): run the same command to go on") from error
