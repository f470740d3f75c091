"""Training samples a second: our loader from the prepared cache against decoding and resizing
full-size PNGs.

    python benchmarks/loader.py --images 24 --repeats 5

Draws files of GTA5's and Cityscapes' sizes (1914x1052 with palette labels, 2048x1024) with sensor
noise, prepares them with both kinds of cache, and reads the same pairs with the same augmentation
in three ways, in turn: `plain` opens, converts and resizes the raw files with Pillow as the public
loaders do. One process, one thread.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from fgda_cli.data.classes import CITYSCAPES_IDS
from fgda_cli.data.geometry import resize_ids
from fgda_cli.data.images import write_image
from fgda_cli.data.loader import PairedSamples
from fgda_cli.data.playground import write_palette_png
from fgda_cli.data.playground.looks import GAME, STREET
from fgda_cli.data.playground.scene import draw
from fgda_cli.data.prepare import How, prepare_layout
from fgda_cli.data.store import open_dataset
from fgda_cli.presets import load_preset
from fgda_cli.runtime.reporter import Reporter

QUIET = Reporter(quiet=True)
SOURCE = (1280, 720)
TARGET = (1024, 512)


def enlarge(
    image: np.ndarray, ids: np.ndarray, size: tuple[int, int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """A scene at full size, with the noise that makes photographs hard to compress."""
    noise = np.random.default_rng(seed).normal(0, 2, (size[1], size[0], 3))
    large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) + noise
    return large.clip(0, 255).astype(np.uint8), resize_ids(ids, size)


def write_raw(root: Path, images: int, shrink: int = 1) -> None:
    table = np.zeros(256, np.uint8)
    table[: len(CITYSCAPES_IDS)] = CITYSCAPES_IDS
    for index in range(images):
        size = (1914 // shrink, 1052 // shrink)
        image, ids = enlarge(*draw(GAME, 0, index), size, index)
        write_image(root / f"gta5/images/{index:05d}.png", image)
        write_palette_png(root / f"gta5/labels/{index:05d}.png", table[ids])
        size = (2048 // shrink, 1024 // shrink)
        image, ids = enlarge(*draw(STREET, 0, index), size, index)
        for split in ("train", "val")[: 2 if index == 0 else 1]:
            stem = f"{split}/town/town_{index:06d}_000019"
            write_image(root / f"city/leftImg8bit/{stem}_leftImg8bit.png", image)
            write_image(root / f"city/gtFine/{stem}_gtFine_labelIds.png", table[ids])


class Plain:
    """A raw data set where `PairedSamples` expects a prepared one: every reading decodes and
    resizes.
    """

    def __init__(
        self, prepared, images: Path, labels: Path | None, size: tuple[int, int], suffix: str
    ):
        self.resample = "area"
        self.prepared = prepared
        self.images = images
        self.labels = labels
        self.size = size
        self.suffix = suffix

    def items(self, split: str, labelled: bool = False):
        return self.prepared.items(split, labelled)

    def image(self, item) -> np.ndarray:
        with Image.open(self.images / f"{item.name}{self.suffix}.png") as image:
            return np.asarray(image.convert("RGB").resize(self.size, Image.BICUBIC))

    def label(self, item) -> np.ndarray:
        with Image.open(self.labels / f"{item.name}.png") as image:
            ids = np.asarray(image.resize(self.size, Image.NEAREST))
        train_ids = np.full(256, 255, np.uint8)
        train_ids[list(CITYSCAPES_IDS)] = np.arange(19)
        return train_ids[ids]


def milliseconds(samples: PairedSamples, count: int) -> float:
    start = time.perf_counter()
    for position in range(count):
        samples[position]
    return 1e3 * (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=24, help="of each domain")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_raw(root, arguments.images)
        settings = load_preset(
            "gta2city",
            [
                f"data.source.size={list(SOURCE)}",
                f"data.target.size={list(TARGET)}",
                "data.sampling=uniform",
            ],
        ).data
        readers = {}
        disk = {}
        for cache in ("raw", "png"):
            out = root / cache
            prepare_layout("gta5", root / "gta5", How(out, SOURCE, 2, reporter=QUIET, cache=cache))
            prepare_layout(
                "cityscapes", root / "city", How(out, TARGET, 2, reporter=QUIET, cache=cache)
            )
            source = open_dataset(out, "gta5")
            target = open_dataset(out, "cityscapes")
            readers[cache] = PairedSamples(source, target, settings, seed=0)
            disk[cache] = (
                sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
                / 2**20
                / arguments.images
            )
        gta = Plain(source, root / "gta5/images", root / "gta5/labels", SOURCE, "")
        city = Plain(target, root / "city/leftImg8bit/train", None, TARGET, "_leftImg8bit")
        readers = {
            "plain": PairedSamples(gta, city, settings, seed=0),
            **readers,
        }
        disk["plain"] = (
            sum(path.stat().st_size for path in root.glob("*/[il]*/**/*.png"))
            / 2**20
            / arguments.images
        )
        found = {name: [] for name in readers}
        for _ in range(arguments.repeats + 1):
            for name, samples in readers.items():
                found[name].append(milliseconds(samples, arguments.images))
    medians = {name: statistics.median(values[1:]) for name, values in found.items()}
    print(
        f"{arguments.images} pairs, {arguments.repeats} repeats, medians; source {SOURCE}, target"
        f" {TARGET}"
    )
    for name, value in medians.items():
        print(
            f"{name:6} {value:7.1f} ms a pair ({medians['plain'] / value:4.1f}x)  "
            f" {disk[name]:5.1f} MiB a pair on disk"
        )


if __name__ == "__main__":
    main()
