"""The files that `predict` and `entropy-map` write for each image."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..data.classes import NAMES, ClassSet
from ..data.images import write_image
from ..data.store import Item
from ..models.zoo import find
from ..runtime.devices import Precision
from ..runtime.errors import UsageError
from ..runtime.files import file_hash, whole_file
from ..runtime.written import Written
from ..visual.pictures import colourise, heat, heat_with_bar, legend, overlay
from .inputs import InputImage
from .tta import Decision, TestTimeAugmentation
from .video import InOrder, VideoFile


@dataclass(frozen=True)
class Ids:
    """Train ids as they are ("train"), or as Cityscapes label ids ("label"), by name. Raises
    UsageError for other classes.
    """

    kind: str
    classes: ClassSet

    def __post_init__(self):
        if self.kind == "label" and self.classes.label_ids() is None:
            raise UsageError(
                "--ids label needs a model of Cityscapes' classes, not"
                f" {', '.join(self.classes.names)}"
            )

    def note(self) -> str | None:
        """Say, for the user, when ids are Cityscapes' by name but not by number; None otherwise."""
        names = self.classes.names
        if self.kind != "train" or names == NAMES[: len(names)] or self.classes.label_ids() is None:
            return None
        number = next(k for k, name in enumerate(names) if name != NAMES[k])
        return (
            f"--ids train: ids 0 to {len(names) - 1} are this model's own ({number} is"
            f" {names[number]}, Cityscapes' is {NAMES[number]}); --ids label writes Cityscapes'"
            " label ids"
        )

    def __call__(self, train_ids: np.ndarray) -> np.ndarray:
        return (
            train_ids
            if self.kind == "train"
            else np.array(self.classes.label_ids(), np.uint8)[train_ids]
        )


@dataclass(frozen=True)
class SavedIds:
    """Writes an evaluated image's ids to `NAME.png`."""

    out: Path
    ids: Ids
    written: Written

    def __call__(self, item: Item, decision: Decision, *_: object) -> None:
        write_image(self.out / f"{item.name}.png", self.ids(decision.train_ids))
        self.written.done(f"{item.name}.png")


def hash_of_options(
    checkpoints: list[Path], tta: TestTimeAugmentation, ids: str, precision: Precision
) -> str:
    """Return a hash of what all results of one call depend on: the checkpoints' files and the
    options.
    """
    hashes = []
    for path in checkpoints:
        with open(find(path), "rb") as file:
            hashes.append(file_hash(file))
    facts = (hashes, tta.to_json(), ids, precision.name)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def key_of(item: InputImage, made_by: str) -> str:
    """Return a hash of what a still image's results depend on: its file, the network and the
    options.
    """
    status = item.path.stat() if item.path.is_file() else None
    facts = (made_by, status and (status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def remaining(
    inputs: list[InputImage], kinds: tuple[str, ...], written: Written, made_by: str
) -> tuple[list[InputImage], int]:
    """Return the inputs without those whose results an earlier run wrote, and how many of them have
    results that were made otherwise: by another network, with other options, of another image.
    """
    left = []
    otherwise = 0
    for item in inputs:
        names = Pictures.names([item], kinds)[1:]
        is_there = written.holds(names)
        is_same = is_there and written.was_made_of(names, key_of(item, made_by))
        otherwise += is_there and not is_same
        left += [] if is_same else [item]
    return left, otherwise


@dataclass(frozen=True)
class Pictures:
    """Writes `NAME_color.png`, `NAME_ids.png`, `NAME_overlay.png` at the input's own size, and
    `legend.png` once.
    """

    out: Path
    classes: ClassSet
    kinds: tuple[str, ...]
    ids: Ids
    written: Written
    # a hash of the network and the options
    made_by: str = ""

    @staticmethod
    def names(inputs: list[InputImage], kinds: tuple[str, ...]) -> list[str]:
        """Return the files that still images will have."""
        return [
            "legend.png",
            *(f"{item.name}_{kind}.png" for item in inputs if not item.is_video for kind in kinds),
        ]

    def write_legend(self) -> None:
        write_image(self.out / "legend.png", legend(self.classes))
        self.written.done("legend.png")

    def __call__(self, item: InputImage, image: np.ndarray, result: dict) -> None:
        key = key_of(item, self.made_by)
        for kind in self.kinds:
            name = f"{item.name}_{kind}.png"
            if item.is_video:
                self.written.check([name])
            # Level 1: twice as fast as the default, a tenth larger.
            write_image(
                self.out / name, self.picture(kind, image, result["train_ids"]), compression=1
            )
            self.written.done(name, key)

    def picture(self, kind: str, image: np.ndarray, train_ids: np.ndarray) -> np.ndarray:
        if kind == "ids":
            return self.ids(train_ids)
        return (
            colourise(train_ids, self.classes)
            if kind == "color"
            else overlay(image, train_ids, self.classes)
        )


@dataclass
class Videos:
    """Writes one `NAME.mp4` of each video's frames: overlay, colour map, or image, overlay and
    entropy side by side; and, of all frames and images, what `pictures` writes. Threads hand in
    frames in any order.
    """

    pictures: Pictures
    kind: str
    files: dict[str, tuple[VideoFile, InOrder]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, item: InputImage, image: np.ndarray, result: dict) -> None:
        if self.pictures.kinds:
            self.pictures(item, image, result)
        if not item.is_video:
            return
        with self.lock:
            if item.video not in self.files:
                file = VideoFile(self.path(item.video), item.rate)
                self.files[item.video] = (file, InOrder(lambda shown: file.add(*shown)))
        self.files[item.video][1].put(item.order, (self.picture(image, result), item.seconds))

    def path(self, video: str) -> Path:
        return self.pictures.out / f"{video}.mp4"

    def picture(self, image: np.ndarray, result: dict) -> np.ndarray:
        if self.kind != "side":
            return self.pictures.picture(self.kind, image, result["train_ids"])
        return np.hstack(
            [
                image,
                self.pictures.picture("overlay", image, result["train_ids"]),
                heat(result["entropy"]),
            ]
        )

    def finish(self, video: str) -> None:
        if video in self.files:
            self.files.pop(video)[0].close()
            self.pictures.written.done(f"{video}.mp4")

    def give_up(self, video: str, error: BaseException) -> None:
        if video in self.files:
            self.files.pop(video)[0].give_up(error)


@dataclass(frozen=True)
class EntropyMaps:
    """Writes `NAME_entropy.png` and, `raw`, `NAME_entropy.npy`; keeps each image's mean."""

    out: Path
    written: Written
    raw: bool = False
    means: dict[str, float] = field(default_factory=dict)

    def __call__(self, item: InputImage, image: np.ndarray, result: dict) -> None:
        entropy = result["entropy"]
        self.means[item.name] = float(entropy.mean())
        names = self.names([item.name], self.raw)
        if item.is_video:
            self.written.check(names)
        write_image(self.out / names[0], heat_with_bar(entropy))
        if self.raw:
            with whole_file(self.out / names[1]) as partial, open(partial, "wb") as handle:
                np.save(handle, entropy.astype(np.float32))
        for name in names:
            self.written.done(name)

    @staticmethod
    def names(items: list[str], raw: bool) -> list[str]:
        """Return the files that images of these names will have."""
        endings = ("_entropy.png", "_entropy.npy") if raw else ("_entropy.png",)
        return [f"{name}{ending}" for name in items for ending in endings]
