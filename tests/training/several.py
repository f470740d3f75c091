"""Run by torchrun, and alone, in tests: adapt with several methods, the same preset and data; one folder a method."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from fgda_cli.presets import load_preset
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import stages, validation
from tests.helpers import TINY


def main(data_root: Path, init: Path, out: Path, *methods: str) -> None:
    torch.set_num_threads(1)
    validation.FRAMES = 3
    job = stages.Job(None, data_root, device="cpu", reporter=Reporter(quiet=True))
    short = ("adapt.iterations=2", "pretrain.iterations=2", "adapt.batch_size=4", "pretrain.batch_size=4")
    for name in methods:
        method, _, norm = name.partition("+")
        preset = load_preset("playground", [*TINY, *short, f"adapt.batch_norm={norm or 'frozen'}"], method)
        ours = replace(job, preset=preset, out=out / name)
        stages.pretrain(ours) if method == "source-only" else stages.adapt(ours, init)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *sys.argv[4:])
