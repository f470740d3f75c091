"""The demo: draw and prepare the playground, pretrain, adapt, evaluate both, draw the
comparison.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data import playground
from ..data.classes import CITYSCAPES
from ..data.images import write_image
from ..data.prepare import How, default_workers, prepare_playground
from ..data.store import PreparedDataset, open_dataset
from ..inference.evaluate import evaluate_file
from ..inference.predict import predict
from ..models.checkpoint import load_model
from ..runtime.devices import Precision, make_precision, pick_device
from ..runtime.files import write_json
from ..runtime.reporter import Reporter
from ..settings import Preset
from ..training import stages
from ..training.speed import minutes_of_stages
from ..visual.pictures import colourise, grid, heat, with_legend
from .compare import from_dataset

# scenes of each domain to train on, and of the street to validate on
SCENES = (200, 50)
# scenes on the comparison sheet
SHOWN = 4
# total time over the time of training steps: validations, checkpoints, the verdict
BESIDE = 1.2


def run_demo(
    preset: Preset,
    out: Path,
    device: str,
    fresh: bool,
    reporter: Reporter,
    workers: int | None = None,
) -> dict[str, Any]:
    """Run the demo below `out`, and return summary.json's content. Runs resume like any other."""
    start = time.perf_counter()
    data = out / "data"
    workers = default_workers(workers)
    if fresh or not (out / "summary.json").is_file():
        reporter.say(estimate(preset, device, workers))
    reporter.say("1/4 drawing and preparing the two domains")
    how = How(data, workers=workers, reporter=reporter)
    prepare_playground(out / "raw", how, scenes=SCENES)
    job = stages.Job(
        preset,
        data,
        out / f"pretrain-seed{preset.run.seed}",
        device=device,
        fresh=fresh,
        reporter=reporter,
    )
    reporter.say("2/4 training on the labelled game scenes")
    source_only = stages.pretrain(job)
    reporter.say("3/4 adapting to the unlabelled street scenes")
    adapted = stages.adapt(
        replace(job, out=out / f"adapt-{preset.method.name}-seed{preset.run.seed}"), source_only
    )
    reporter.say("4/4 evaluating both")
    wanted = preset.data.evaluation
    precision = make_precision("fp32", pick_device(device))
    dataset = open_dataset(data, wanted.dataset)
    results = [
        evaluate_file(path, dataset, wanted.split, precision=precision, reporter=reporter).to_json()
        for path in (source_only, adapted)
    ]
    write_image(
        out / "comparison.png",
        sheet(dataset, wanted.split, [source_only, adapted], precision=precision),
    )
    summary = {
        "seed": preset.run.seed,
        "seconds": round(time.perf_counter() - start, 1),
        "source_only": results[0],
        "adapted": results[1],
        "gain": results[1]["miou"] - results[0]["miou"],
    }
    write_json(out / "summary.json", summary)
    return summary


def estimate(preset: Preset, device: str, workers: int) -> str:
    """Return how long the demo takes on this machine, as some steps and scenes of it do now."""
    scenes = 2 * SCENES[0] + SCENES[1]
    minutes = [playground.seconds_a_scene() * scenes / max(workers, 1) / 60]
    limit = (preset.run.time_limit or math.inf) / 60
    of_steps = minutes_of_stages(preset, len(CITYSCAPES), device)
    minutes += [min(BESIDE * steps, limit) for steps in of_steps.values()]
    parts = "drawing {:.1f}, training {:.1f}, adapting {:.1f}".format(*minutes)
    return f"about {sum(minutes):.1f} minutes on this machine: {parts}"


def sheet(
    dataset: PreparedDataset, split: str, checkpoints: list[Path], precision: Precision
) -> np.ndarray:
    """Draw image, truth, both predictions and both entropy maps side by side, for scenes spread
    over the split.
    """
    models = [precision.to_device(load_model(path)[0]) for path in checkpoints]
    rows = []
    for scene in from_dataset(dataset, split, SHOWN):
        predictions = [predict(model, scene.image, precision) for model in models]
        maps = [colourise(result["train_ids"], dataset.classes) for result in predictions]
        rows.append(
            [
                scene.image,
                colourise(scene.truth, dataset.classes),
                *maps,
                *(heat(r["entropy"]) for r in predictions),
            ]
        )
    headings = [
        "image",
        "truth",
        "source only",
        "adapted",
        "entropy: source only",
        "entropy: adapted",
    ]
    return with_legend(grid(rows, headings), dataset.classes)
