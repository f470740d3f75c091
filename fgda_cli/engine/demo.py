"""The demo: draw and prepare the playground, pretrain, adapt, evaluate both, draw the comparison."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.classes import ClassSet
from ..data.files import write_json, write_png
from ..data.recipes import default_workers, prepare_playground
from ..data.store import PreparedDataset, open_dataset
from ..reporter import Reporter
from ..schema import Preset
from ..visual.colour import colourise
from ..visual.heat import heat
from ..visual.sheets import grid, with_legend
from . import stages
from .checkpoint import load_model
from .compute import make_precision, pick_device
from .evaluate import evaluate_file
from .predict import predict

SHOWN = 4  # scenes on the comparison sheet


def run_demo(preset: Preset, out: Path, device: str, fresh: bool, reporter: Reporter) -> dict[str, Any]:
    """Everything below `out`; returns summary.json's content. Runs resume like any other."""
    start, data = time.perf_counter(), out / "data"
    workers = default_workers(None)
    reporter.say("1/4 drawing and preparing the two domains")
    prepare_playground(out / "raw", data, None, reporter, workers)
    job = stages.Job(preset, data, out / f"pretrain-seed{preset.run.seed}", device, fresh, reporter)
    reporter.say("2/4 training on the labelled game scenes")
    source_only = stages.pretrain(job)
    reporter.say("3/4 adapting to the unlabelled street scenes")
    adapted = stages.adapt(replace(job, out=out / f"adapt-{preset.method.name}-seed{preset.run.seed}"), source_only)
    reporter.say("4/4 evaluating both")
    wanted, precision = preset.data.evaluation, make_precision("fp32", pick_device(device))
    dataset = open_dataset(data, wanted.dataset)
    results = [evaluate_file(path, dataset, wanted.split, precision, reporter) for path in (source_only, adapted)]
    write_png(out / "comparison.png", comparison(dataset, wanted.split, [source_only, adapted]))
    summary = {"seed": preset.run.seed, "seconds": round(time.perf_counter() - start, 1), "source_only": results[0],
               "adapted": results[1], "gain": results[1]["miou"] - results[0]["miou"]}  # fmt: skip
    write_json(out / "summary.json", summary)
    return summary


def comparison(dataset: PreparedDataset, split: str, checkpoints: list[Path]) -> np.ndarray:
    """Image, truth, both predictions, both entropy maps, for scenes spread over the split."""
    items = dataset.items(split, labelled=True)
    models = [load_model(path)[0] for path in checkpoints]
    chosen = [items[index] for index in np.linspace(0, len(items) - 1, min(SHOWN, len(items))).astype(int)]
    rows = []
    for item in chosen:
        image, label = dataset.image(item), dataset.label(item)
        found = [predict(model, np.ascontiguousarray(image)) for model in models]
        classes: ClassSet = dataset.classes
        maps = [colourise(result["train_ids"], classes) for result in found]
        rows.append([image, colourise(label, classes), *maps, *(heat(result["entropy"]) for result in found)])
    headings = ["image", "truth", "source only", "adapted", "entropy: source only", "entropy: adapted"]
    return with_legend(grid(rows, headings, (256, 128)), dataset.classes)
