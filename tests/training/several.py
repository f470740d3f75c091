"""Run by torchrun, and alone, in tests: adapt with several methods, the same preset and data; one
folder a method.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from fgda_cli.presets import load_preset
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import stages, validation
from tests.helpers import TINY

# an encoder whose norms are classes of its own, which are shared too
TIMM = (
    "model.backbone=timm:mobilenetv3_small_050",
    "model.output_stride=16",
    "model.weights=none",
    "model.width=64",
    "model.head=fused",
    "model.head_width=32",
    "model.dilations=[2]",
    "adapt.start=backbone",
    "optim.lr=0.01",
)


def main(data_root: Path, init: Path, out: Path, *methods: str) -> None:
    torch.set_num_threads(1)
    validation.FRAMES = 3
    job = stages.Job(None, data_root, device="cpu", reporter=Reporter(quiet=True))
    short = (
        "adapt.iterations=2",
        "pretrain.iterations=2",
        "adapt.batch_size=4",
        "pretrain.batch_size=4",
    )
    for name in methods:
        method, norm, encoder = f"{name}++".split("+")[:3]
        sets = [
            *TINY,
            *short,
            f"adapt.batch_norm={norm or 'frozen'}",
            *(TIMM if encoder == "timm" else ()),
        ]
        ours = replace(job, preset=load_preset("playground", sets, method), out=out / name)
        if method == "source-only":
            stages.pretrain(ours)
        else:
            stages.adapt(ours, None if encoder else init)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *sys.argv[4:])
