"""Classes that the source never shows count as 0 in the mean; that is said, with the mean without
them.
"""

from __future__ import annotations

import json

import numpy as np

from fgda_cli.data.loader import PairedSamples
from fgda_cli.data.store import open_dataset
from fgda_cli.models import checkpoint
from tests.helpers import data_settings, fgda


def test_classes_without_a_pixel_are_untaught(data_root):
    source = open_dataset(data_root, "playground-game")
    samples = PairedSamples(source, None, data_settings(), seed=0)
    totals = np.sum([item.counts for item in source.items("train")], axis=0)
    assert samples.untaught() == [
        name for name, total in zip(source.classes.names, totals, strict=True) if total == 0
    ]


def test_evaluate_says_the_mean_over_what_was_taught(trained, data_root, tmp_path):
    content = checkpoint.load(trained)
    assert "untaught" in content
    content["untaught"] = ["road", "sky"]
    checkpoint.save(tmp_path / "some.pth", content)
    done = fgda("evaluate", tmp_path / "some.pth", "--data-root", data_root, "--json")
    assert done.returncode == 0, done.stderr
    iou = json.loads(done.stdout)["iou"]
    rest = [
        value for name, value in iou.items() if value is not None and name not in ("road", "sky")
    ]
    assert (
        f"never shows road, sky; mIoU over the other {len(rest)} classes: {np.mean(rest):.1f}"
        in done.stderr
    )
    content["untaught"] = []
    checkpoint.save(tmp_path / "all.pth", content)
    assert (
        "never shows" not in fgda("evaluate", tmp_path / "all.pth", "--data-root", data_root).stderr
    )
