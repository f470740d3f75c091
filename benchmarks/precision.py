"""What `--precision auto` takes on dense, depthwise and transformer networks, against the better
choice.

    python benchmarks/precision.py --size 256x192 --repeats 3

For each network: seconds a training step in fp32 and bf16 at the size given, medians of interleaved
repeats; what auto takes from its own measurement; and how much slower that is than the better of
the two (never more than 10 %).
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from fgda_cli.models.segmenter import Segmenter
from fgda_cli.runtime.devices import MEASURED, Precision, make_precision
from fgda_cli.runtime.system import keep_freed_memory

NETWORKS = {
    "dense: resnet18": ("resnet18", 8),
    "depthwise: tf_efficientnet_lite0": ("timm:tf_efficientnet_lite0", 16),
    "depthwise: mobilenetv3_small_100": ("timm:mobilenetv3_small_100", 16),
    "depthwise 7x7: convnext_atto": ("timm:convnext_atto", "native"),
    "transformer: vit_tiny_patch16_224": ("timm:vit_tiny_patch16_224", "native"),
}


def step(model: Segmenter, precision: Precision, images: torch.Tensor) -> float:
    model.zero_grad(set_to_none=True)
    start = time.perf_counter()
    with precision.autocast():
        logits = model(images).logits
    logits.float().square().mean().backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="256x192")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    # as the command line does
    keep_freed_memory()
    width, height = map(int, arguments.size.split("x"))
    cpu = torch.device("cpu")
    images = torch.randint(0, 256, (arguments.batch, 3, height, width), dtype=torch.uint8)
    print(f"{'network':36} {'fp32':>8} {'bf16':>8}  auto  slower than the better")
    for label, (name, stride) in NETWORKS.items():
        head = "aspp" if name == "resnet18" else "fused"
        model = Segmenter(7, name, output_stride=stride, multi_level=False, head=head).train()
        taken = make_precision("auto", cpu, model=model).name
        seconds: dict[str, list[float]] = {kind: [] for kind in MEASURED}
        for _ in range(arguments.repeats + 1):
            for kind in MEASURED:
                precision = Precision(kind, cpu)
                precision.to_device(model)
                seconds[kind].append(step(model, precision, images))
        medians = {kind: statistics.median(values[1:]) for kind, values in seconds.items()}
        loss = medians[taken] / min(medians.values()) - 1
        print(
            f"{label:36} {medians['fp32']:7.3f}s {medians['bf16']:7.3f}s  {taken} "
            f" {100 * loss:.0f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
