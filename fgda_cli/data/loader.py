"""Training batches. Sample `position` is a pure function of (seed, stage, position): a resume needs
no data state.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ..runtime.errors import FgdaError
from ..runtime.random import SampleStream
from ..runtime.system import on_signal
from ..runtime.transfer import may_go_on
from ..settings import Data, Domain, Target
from . import augment, sampling
from .classes import IGNORE_INDEX
from .geometry import resize_ids, resize_image
from .store import AnyDataset


class Batch(NamedTuple):
    """Input of a method's step. Images are RGB uint8 `[B,3,H,W]`, ids uint8 `[B,H,W]`."""

    # None where a method uses none
    source: Tensor | None
    labels: Tensor | None
    # None in source-only training
    target: Tensor | None
    # images of the target's labelled part, where the preset names one
    labelled: Tensor | None = None
    # train ids of `labelled`
    labelled_ids: Tensor | None = None
    # bool `[B,H,W]`, False in the target's border (data.target.border), for methods that read it
    # (`Method.reads_border`).
    target_border: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        return Batch(
            *(
                value.to(device, non_blocking=may_go_on(device))
                if isinstance(value, Tensor)
                else value
                for value in self
            )
        )

    def split(self, parts: int) -> list[Batch]:
        """Return even parts of the batch, in order."""
        count = len(self.target if self.source is None else self.source) // parts
        spans = [slice(number * count, (number + 1) * count) for number in range(parts)]
        return [
            Batch(*(None if value is None else value[span] for value in self)) for span in spans
        ]


def training_split(dataset: AnyDataset) -> str:
    """Return the split to look at without labels: train, or the first split where there is none."""
    return "train" if "train" in dataset.splits() else dataset.splits()[0]


@dataclass
class PairedSamples(Dataset):
    """Samples by position: source image and label and, when there is a target, an unlabelled target
    image.
    """

    source: AnyDataset | None
    target: AnyDataset | None
    settings: Data
    seed: int
    # train ids that are ignored in training
    untrained: tuple[int, ...] = ()
    # how the method draws source images, if it does not follow the settings
    own_sampling: str | None = None
    # whether the stage uses the settings' colour jitter and blur
    changes_colours: bool = True
    # whether the method reads the target's border
    reads_border: bool = False
    # the target's labelled part
    labelled: AnyDataset | None = None
    draw_source: sampling.Draw = field(init=False)
    # by stream: the present epoch and its order of items
    orders: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)

    def __post_init__(self):
        self.source_items = self.source.items("train", labelled=True) if self.source else []
        self.target_items = self.target.items("train") if self.target else []
        self.labelled_items = self.labelled.items("train", labelled=True) if self.labelled else []
        shares = self.target.shares(self.target_items) if self.target else None
        # None: in epochs
        self.draw_target = (
            None if shares is None else sampling.uniform(len(self.target_items), shares)
        )
        if self.source is None:
            return
        counts = np.array([item.counts for item in self.source_items], np.float64)
        if self.untrained:
            counts[:, list(self.untrained)] = 0
        if not counts.any():
            raise FgdaError(
                f"{self.source.name} has no labelled pixel of a trained class, so there is nothing"
                " to learn\ncheck the mapping that it was prepared with, and data.untrained"
            )
        pixels = np.array([item.size[0] * item.size[1] for item in self.source_items])
        shares = self.source.shares(self.source_items)
        self.draw_source = sampling.make(
            self.own_sampling or self.settings.sampling,
            counts,
            self.settings.rare_class_min_pixels,
            image_pixels=pixels,
            shares=shares,
            temperature=self.settings.rare_class_temperature,
        )

    def __len__(self) -> int:
        return len(self.source_items) or len(self.target_items)

    def class_shares(self) -> Tensor:
        """Return the class shares of the source's trained pixels, `[K]` float64."""
        totals = np.sum([item.counts for item in self.source_items], axis=0, dtype=np.float64)
        totals[list(self.untrained)] = 0
        return torch.from_numpy(totals / max(totals.sum(), 1))

    def untaught(self) -> list[str]:
        """Return names of the classes that no training image of the source shows; none where there
        is no source.
        """
        if self.source is None:
            return []
        return [
            name
            for name, share in zip(self.source.classes.names, self.class_shares(), strict=True)
            if not share
        ]

    def class_weights(self, power: float) -> Tensor | None:
        """Return class weights `[256]`: 1/share^power, 1 on average over the source's trained
        pixels; None for power 0.
        """
        if not power or self.source is None:
            return None
        shares = self.class_shares()
        present = shares > 0
        if not present.any():
            return None
        weights = torch.ones(256, dtype=torch.float64)
        weights[: len(shares)][present] = (
            shares[present] ** -power / (shares[present] ** (1 - power)).sum()
        )
        return weights.float()

    def __getitem__(self, position: int) -> dict[str, Tensor | str]:
        sample: dict[str, Tensor | str] = {}
        if self.source is not None:
            rng = np.random.default_rng([self.seed, SampleStream.SOURCE, position])
            index, wanted = self.draw_source.pick(rng)
            drawn = self._labelled(
                self.source, self.source_items[index], self.settings.source, rng=rng, wanted=wanted
            )
            sample = dict(zip(("source", "labels"), drawn, strict=True))
        if self.target is not None:
            sample |= self._target(position)
        if self.labelled_items:
            item, rng = self._in_epochs(self.labelled_items, position, SampleStream.LABELLED_ORDER)
            drawn = self._labelled(self.labelled, item, self.settings.target, rng=rng)
            sample |= dict(zip(("labelled", "labelled_ids"), drawn, strict=True))
        return sample

    def _labelled(
        self,
        dataset: AnyDataset,
        item,
        view: Domain,
        rng: np.random.Generator,
        wanted: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return image and train ids; `wanted` is the class for which the item was drawn."""
        size = augment.scaled_size(view.size, view.scale, rng)
        image = resize_image(dataset.image(item), size, dataset.resample)
        label = self._label(dataset, item, size)
        jitter = self.settings.colour_jitter if self.changes_colours else (0.0, 0.0, 0.0, 0.0)
        image = augment.colour_jitter(image, jitter, rng)
        image = augment.random_blur(image, self.settings.blur if self.changes_colours else 0.0, rng)
        if view.crop is not None:
            box = augment.varied_box(
                label,
                view.crop,
                rng,
                most=view.max_class_share,
                wanted=wanted,
                least=self.settings.rare_class_crop_pixels,
                tries=self.settings.crop_tries,
            )
            image = augment.cut(image, box, view.crop, fill=0)
            label = augment.cut(label, box, view.crop)
        if self.settings.flip:
            image, label = augment.random_flip(rng, image, label)
        return to_tensor(image), torch.from_numpy(np.ascontiguousarray(label))

    def _label(self, dataset: AnyDataset, item, size: tuple[int, int]) -> np.ndarray:
        label = resize_ids(dataset.label(item), size)
        if not self.untrained:
            return label
        return np.where(np.isin(label, self.untrained), np.uint8(IGNORE_INDEX), label)

    def use_source(self, dataset: AnyDataset) -> None:
        """Draw from another source from now on, of the same images in another look."""
        self.source = dataset
        self.__post_init__()

    def any_source(self, generator: torch.Generator) -> Tensor:
        """Return a source image that the generator draws, uint8 `[3,H,W]` at the size of its view,
        otherwise unchanged.
        """
        return self._any(self.source, self.source_items, self.settings.source, generator=generator)

    def any_target(self, generator: torch.Generator) -> Tensor:
        return self._any(self.target, self.target_items, self.settings.target, generator=generator)

    @staticmethod
    def _any(dataset: AnyDataset, items: list, view: Domain, generator: torch.Generator) -> Tensor:
        item = items[int(torch.randint(len(items), (), generator=generator))]
        return to_tensor(resize_image(dataset.image(item), view.size, dataset.resample))

    def source_label(self, index: int) -> Tensor:
        """Return a source item's train ids `[H,W]` at the size of its view, uncropped."""
        return torch.from_numpy(
            np.ascontiguousarray(
                self._label(self.source, self.source_items[index], self.settings.source.size)
            )
        )

    def _in_epochs(self, items: list, position: int, stream: int):
        """The item of a position, in shuffled epochs so that each is seen equally often, and a
        generator for its changes.
        """
        epoch, rank = divmod(position, len(items))
        if self.orders.get(stream, (-1, None))[0] != epoch:
            self.orders[stream] = (
                epoch,
                np.random.default_rng([self.seed, stream, epoch]).permutation(len(items)),
            )
        order = self.orders[stream][1]
        return items[order[rank]], np.random.default_rng([self.seed, stream + 1, position])

    def _target(self, position: int) -> dict[str, Tensor]:
        item, rng = self._in_epochs(self.target_items, position, SampleStream.TARGET_ORDER)
        if self.draw_target is not None:
            item = self.target_items[
                self.draw_target(
                    np.random.default_rng([self.seed, SampleStream.JOINED_TARGETS, position])
                )
            ]
        view = self.settings.target
        size = augment.scaled_size(view.size, view.scale, rng)
        image = resize_image(self.target.image(item), size, self.target.resample)
        border = self._border(image.shape[:2], view)
        if view.crop is not None:
            box = augment.random_box(size, view.crop, rng)
            image = augment.cut(image, box, view.crop, fill=0)
            border = [augment.cut(mask, box, view.crop, fill=0) for mask in border]
        if self.settings.flip:
            image, *border = augment.random_flip(rng, image, *border)
        sample = {"target": to_tensor(image)}
        if border:
            sample["target_border"] = torch.from_numpy(np.ascontiguousarray(border[0])).bool()
        return sample

    def _border(self, size: tuple[int, int], view: Target) -> list[np.ndarray]:
        """Return the mask uint8 `[H,W]` of a whole target image (height, width) where the method
        reads it, else nothing.
        """
        if not self.reads_border or not any(view.border):
            return []
        (top, bottom), (left, right) = (
            (int(first * side), side - int(last * side))
            for side, first, last in zip(size, view.border[::2], view.border[1::2], strict=True)
        )
        mask = np.zeros(size, np.uint8)
        mask[top:bottom, left:right] = 1
        return [mask]

    def target_images(self, rank: int = 0, processes: int = 1) -> Iterator[Tensor]:
        """Yield every target training image of this process once, uint8 `[3,H,W]`, for rounds of
        self-training.
        """
        for item in self.target_items[rank::processes]:
            yield to_tensor(
                resize_image(
                    self.target.image(item), self.settings.target.size, self.target.resample
                )
            )

    def target_batches(self, size: int = 8) -> Iterator[Tensor]:
        """Yield all of `target_images`, `size` at a time, uint8 `[n,3,H,W]`."""
        images = self.target_images()
        while batch := list(islice(images, size)):
            yield torch.stack(batch)


def to_tensor(image: np.ndarray) -> Tensor:
    """Return an RGB uint8 array `[H,W,3]` as a tensor `[3,H,W]`."""
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    # three times as fast as a transposed copy
    cv2.split(np.ascontiguousarray(image), list(planes))
    return torch.from_numpy(planes)


def _quiet_worker(_: int) -> None:
    """Workers leave Ctrl-C to the main process, and do not fight it for cores."""
    on_signal("SIGINT", signal.SIG_IGN)
    cv2.setNumThreads(0)


def _collate(samples: list[dict | FgdaError]) -> Batch | FgdaError:
    failed = next((sample for sample in samples if isinstance(sample, FgdaError)), None)
    if failed is not None:
        return failed
    return Batch(**({"source": None, "labels": None, "target": None} | default_collate(samples)))


@dataclass
class Told(Dataset):
    """Samples whose errors are handed over as they are: raised in a worker, they would come wrapped
    in its traceback.
    """

    samples: PairedSamples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> dict[str, Tensor | str] | FgdaError:
        try:
            return self.samples[position]
        except FgdaError as error:
            return error


@dataclass(frozen=True)
class Positions:
    """Positions of each batch of iterations first to last - 1: process `rank`'s even share of
    `batch_size`.
    """

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


def batches(
    samples: PairedSamples, positions: Positions, workers: int, pin: bool
) -> Iterator[Batch]:
    """Yield a batch for each entry of `positions`, read ahead by `workers` processes."""
    loader = DataLoader(
        Told(samples),
        batch_sampler=positions,
        num_workers=workers,
        worker_init_fn=_quiet_worker,
        pin_memory=pin,
        persistent_workers=False,
        collate_fn=_collate,
        # or each start of it, as in a resume, moves torch's own
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, FgdaError):
            raise batch
        yield batch


@contextmanager
def watched() -> Iterator[None]:
    """Guard the code that uses `batches`: torch reports a killed worker by an error in the midst of
    any other work.

    Raises FgdaError in its place.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise FgdaError(
            "a process that reads images was killed: out of memory, or of shared memory (docker run"
            " --shm-size=2g)\nrun the same command to go on, with --set run.workers=0 if it happens"
            " again"
        ) from error
