"""cityscapesScripts accepts our label ids, and finds the IoU that `fgda evaluate` finds."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests.helpers import fgda, needs

pytestmark = needs("cityscapesscripts")

# The package's last release calls numpy.in1d, which numpy 2.4 dropped for isin.
EVALUATOR = """
import numpy, runpy
numpy.in1d = numpy.isin
runpy.run_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling", run_name="__main__")
"""


def official(dataset, results, out) -> dict[str, float]:
    """Per-class IoU (0 to 1) of the official script."""
    out.mkdir()
    places = {
        "CITYSCAPES_DATASET": dataset,
        "CITYSCAPES_RESULTS": results,
        "CITYSCAPES_EXPORT_DIR": out,
    }
    environment = {**os.environ, **{name: str(path) for name, path in places.items()}}
    done = subprocess.run(
        [sys.executable, "-c", EVALUATOR],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((out / "resultPixelLevelSemanticLabeling.json").read_text())["classScores"]


@pytest.fixture
def cityscapes(raw_playground, tmp_path):
    """The street domain with the instance ids that the script asks for (here the label ids: no
    instances).
    """
    root = tmp_path / "cityscapes"
    shutil.copytree(raw_playground / "street", root)
    for path in root.rglob("gtFine/val/*/*_labelIds.png"):
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path).replace("labelIds", "instanceIds"), ids.astype(np.uint16))
    return root


def test_the_official_evaluator_finds_our_numbers(trained, data_root, cityscapes, tmp_path):
    ours = fgda(
        "evaluate",
        trained,
        "--data-root",
        data_root,
        "--json",
        "--save-predictions",
        tmp_path / "evaluated",
        "--ids",
        "label",
    )
    photos = cityscapes / "leftImg8bit/val"
    predicted = fgda(
        "predict",
        trained,
        photos,
        "-r",
        "--out",
        tmp_path / "predicted",
        "--save",
        "ids",
        "--ids",
        "label",
    )
    assert ours.returncode == 0 and predicted.returncode == 0, ours.stderr + predicted.stderr
    iou = json.loads(ours.stdout)["iou"]
    theirs = official(cityscapes, tmp_path / "evaluated", tmp_path / "export1")
    assert any(value for value in iou.values()), "a network that finds nothing would compare zeros"
    for name, value in iou.items():
        assert (
            math.isnan(theirs[name]) if value is None else abs(theirs[name] - value / 100) <= 1e-6
        ), name
    # predict sees the photographs, evaluate the cache: at 64x32 both were reduced alike.
    again = official(cityscapes, tmp_path / "predicted", tmp_path / "export2")
    assert all(again[name] == theirs[name] or math.isnan(theirs[name]) for name in iou)
