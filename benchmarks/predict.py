"""`evaluate` and `predict` from file to file, against the bare forward of the same images.

    python benchmarks/predict.py --network resnet101 --images 6 --repeats 3

Bare: the network on tensors that are in memory already, in the same batches. Evaluate: prepared
images of the network's size and labels of `--label` size. Predict: PNG photographs of `--label`
size; colour maps, ids and overlays are written. The variants run in turn in one process; medians.
`--memory` also reads 10,000 images and prints the memory after each tenth.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from fgda_cli.commands.predict import KINDS
from fgda_cli.data.classes import CITYSCAPES
from fgda_cli.data.geometry import InputRule, resize_ids
from fgda_cli.data.images import write_image
from fgda_cli.data.loader import to_tensor
from fgda_cli.data.playground.looks import STREET
from fgda_cli.data.playground.scene import draw
from fgda_cli.data.store import PreparedDataset
from fgda_cli.inference.evaluate import evaluate_model
from fgda_cli.inference.inputs import collect
from fgda_cli.inference.outputs import Ids, Pictures
from fgda_cli.inference.pipeline import batched, images_per_batch
from fgda_cli.inference.predict import predict_inputs
from fgda_cli.inference.tta import forward_logits
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.runtime.devices import make_precision
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.runtime.system import keep_freed_memory
from fgda_cli.runtime.written import Written

NETWORKS = {"resnet101": ("resnet101", 64, True), "playground": ("resnet18", 32, False)}
QUIET = Reporter(quiet=True)


def size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def write_data(root: Path, images: int, network: tuple[int, int], label: tuple[int, int]) -> None:
    """A prepared data set, and photographs of the same scenes."""
    items = []
    for index in range(images):
        image, ids = draw(STREET, 0, index)
        noise = np.random.default_rng(index).normal(0, 2, (label[1], label[0], 3))
        large = (
            (cv2.resize(image, label, interpolation=cv2.INTER_CUBIC) + noise)
            .clip(0, 255)
            .astype(np.uint8)
        )
        write_image(root / f"photos/{index:05d}.png", large)
        write_image(
            root / f"set/images/{index:05d}.bmp",
            cv2.resize(large, network, interpolation=cv2.INTER_AREA),
        )
        write_image(root / f"set/labels/{index:05d}.png", resize_ids(ids, label))
        names = {
            "name": f"{index:05d}",
            "image": f"images/{index:05d}.bmp",
            "label": f"labels/{index:05d}.png",
        }
        items.append(names | {"size": label})
    manifest = {
        "format": "fgda-dataset",
        "version": 2,
        "dataset": "bench",
        "classes": CITYSCAPES.to_json(),
        "splits": {"val": items},
    }
    (root / "set/manifest.json").write_text(json.dumps(manifest))


def bare(model, dataset, network, precision) -> float:
    images = [to_tensor(dataset.image(item)) for item in dataset.items("val")]
    batches = [
        torch.stack(batch) for batch in batched(images, images_per_batch(network, precision.device))
    ]
    start = time.perf_counter()
    for batch in batches:
        forward_logits(model, batch, precision)
    return time.perf_counter() - start


def timed(action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def memory(model, root: Path, precision, images: int) -> None:
    """The same photographs again and again under 10,000 names."""
    inputs = [i for i in collect([str(root / "photos")], False)]
    many = [inputs[k % len(inputs)] for k in range(images)]
    seen = []

    def write(item, image, result) -> None:
        seen.append(1)
        if len(seen) % (images // 10) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(
                f"{len(seen):6} images: {pages * resource.getpagesize() / 2**20:.0f} MiB",
                flush=True,
            )

    predict_inputs(model, many, precision, reporter=QUIET, write=write)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # as the command line does
    keep_freed_memory()
    parser.add_argument("--network", choices=NETWORKS, default="resnet101")
    parser.add_argument(
        "--size", type=size, default=(1024, 512), help="of the network's input, WxH"
    )
    parser.add_argument(
        "--label", type=size, default=(2048, 1024), help="of labels and photographs, WxH"
    )
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument(
        "--memory", type=int, default=0, metavar="N", help="predict N images and print the memory"
    )
    arguments = parser.parse_args()
    backbone, width, multi_level = NETWORKS[arguments.network]
    model = Segmenter(19, backbone, width=width, multi_level=multi_level).eval()
    model.input_rule = InputRule(arguments.size)
    precision = make_precision(arguments.precision, torch.device("cpu"))
    precision.to_device(model)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_data(root, arguments.images, arguments.size, arguments.label)
        if arguments.memory:
            return memory(model, root, precision, arguments.memory)
        dataset = PreparedDataset(root / "set")
        inputs = collect([str(root / "photos")], False)
        runs = {
            "bare": lambda: bare(model, dataset, arguments.size, precision),
            "evaluate": lambda: timed(
                lambda: evaluate_model(
                    model, CITYSCAPES, dataset, split="val", precision=precision, reporter=QUIET
                )
            ),
            "predict": lambda: timed(
                lambda: predict_inputs(
                    model,
                    inputs,
                    precision,
                    reporter=QUIET,
                    write=Pictures(
                        root / "out",
                        CITYSCAPES,
                        KINDS,
                        ids=Ids("train", CITYSCAPES),
                        written=Written(root / "out"),
                    ),
                    with_entropy=False,
                )
            ),
        }
        found = {name: [] for name in runs}
        for repeat in range(arguments.repeats + 1):
            for name, run in runs.items():
                seconds = run()
                # the first round warms up
                if repeat:
                    found[name].append(seconds / arguments.images)
    medians = {name: statistics.median(values) for name, values in found.items()}
    print(
        f"{arguments.network} {arguments.precision}, {arguments.size} -> {arguments.label},"
        f" {arguments.images} images, {arguments.repeats} repeats, {torch.get_num_threads()}"
        " threads"
    )
    for name, value in medians.items():
        print(f"{name:9} {1e3 * value:8.1f} ms an image ({value / medians['bare']:.2f})")


if __name__ == "__main__":
    main()
