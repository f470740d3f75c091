"""`fgda verdict`: what is judged, and what is said of how."""

from __future__ import annotations

import torch

from fgda_cli.runtime.devices import make_precision, pick_device
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.studies.verdict import VerdictOptions, run_verdict
from fgda_cli.visual.tables import verdict_lines


def test_a_checkpoint_of_another_input_size_is_judged_at_the_baselines_and_that_is_said(
    trained, data_root, tmp_path
):
    content = torch.load(trained, weights_only=True)
    width, height = content["input"]["size"]
    paths = [tmp_path / "alike.pth", tmp_path / "larger.pth"]
    for path, factor in zip(paths, (1, 2), strict=True):
        rule = content["input"] | {"size": [width * factor, height * factor]}
        torch.save(content | {"input": rule}, path)
    reporter = Reporter(quiet=True, decisions=[])
    study = run_verdict(
        paths,
        ["alike", "larger"],
        VerdictOptions(data_root, baseline=trained, frames=4),
        precision=make_precision("fp32", pick_device("cpu")),
        reporter=reporter,
    )
    assert reporter.decisions == [
        f"{paths[1]} was trained at {2 * width}x{2 * height}, and is judged at the baseline's"
        f" {width}x{height}"
    ]
    # the same weights on the same frames
    first, *others = (one.observed.signals for one in study.checkpoints)
    assert others == [first, first]


def test_where_several_helped_their_mean_is_named():
    def lines(*verdicts):
        results = [{"verdict": one, "words": []} for one in ("baseline", *verdicts)]
        return "\n".join(verdict_lines(["x"] * len(results), results))

    assert "average them" in lines("helped", "collapsed or harmful", "helped")
    assert lines("helped", "no clear change") == ""
