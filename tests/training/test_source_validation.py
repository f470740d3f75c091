"""Source models that are finished: validation on held-out source images, averaged weights, a word
when a start still rises.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from fgda_cli.data.store import open_dataset
from fgda_cli.presets import load_preset
from fgda_cli.runtime.errors import UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import stages
from fgda_cli.training.state import TrainState
from tests.helpers import crash_at


@pytest.fixture(scope="module")
def held_out(data_root, tmp_path_factory):
    """The playground, its last game scenes held out as the split val."""
    root = tmp_path_factory.mktemp("held-out")
    for name in ("playground-game", "playground-street"):
        shutil.copytree(data_root / name, root / name)
    path = root / "playground-game/manifest.json"
    manifest = json.loads(path.read_text())
    train = manifest["splits"]["train"]
    manifest["splits"] = {"train": train[:-3], "val": train[-3:]}
    path.write_text(json.dumps(manifest))
    assert len(open_dataset(root, "playground-game").items("val")) == 3
    return root


def job_of(preset, root, out, **how):
    return stages.Job(preset, root, out, device="cpu", reporter=Reporter(quiet=True), **how)


def test_the_source_picks_the_checkpoint_that_pretraining_ends_with(
    held_out, tiny_preset, tmp_path
):
    preset = tiny_preset("data.source.validation=val", "pretrain.evaluate_every=2")
    final = torch.load(
        stages.pretrain(job_of(preset, held_out, tmp_path / "run")), weights_only=True
    )
    curve = final["source_validation"]
    assert [iteration for iteration, _ in curve] == [2, 4, 6]
    assert final["iteration"] == max(curve, key=lambda pair: pair[1])[0]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    logged = [line["validation"] for line in lines if "validation" in line]
    assert [entry["source_miou"] for entry in logged] == pytest.approx(
        [value for _, value in curve]
    )
    # the target's labels are still looked at, and pick nothing
    assert all("miou" in entry for entry in logged)


def test_a_source_without_that_split_is_refused_before_training(data_root, tiny_preset, tmp_path):
    preset = tiny_preset("data.source.validation=val")
    with pytest.raises(UsageError, match="data.source.validation: .*val"):
        stages.pretrain(job_of(preset, data_root, tmp_path / "run"))
    with pytest.raises(UsageError, match="unknown key 'data.target.validation'"):
        load_preset("playground", ["data.target.validation=val"])


def test_averaged_weights_are_the_mean_of_the_last_iterations(
    data_root, tiny_preset, tmp_path, monkeypatch
):
    seen = []
    original = TrainState.average_weights

    def average(self):
        seen.append({name: value.clone() for name, value in self.method.model.state_dict().items()})
        original(self)

    monkeypatch.setattr(TrainState, "average_weights", average)
    preset = tiny_preset("pretrain.average_last=0.5")
    final = torch.load(
        stages.pretrain(job_of(preset, data_root, tmp_path / "run")), weights_only=True
    )["model"]
    assert len(seen) == 3  # of 6 iterations
    for name, value in final.items():
        states = [state[name] for state in seen]
        expected = torch.stack(states).mean(0) if value.is_floating_point() else states[-1]
        torch.testing.assert_close(value, expected, msg=name)


def test_a_resumed_run_averages_the_same(data_root, tiny_preset, tmp_path, monkeypatch):
    preset = tiny_preset("pretrain.average_last=0.7")
    whole = torch.load(
        stages.pretrain(job_of(preset, data_root, tmp_path / "whole")), weights_only=True
    )["model"]
    parts = job_of(preset, data_root, tmp_path / "parts")
    crash_at(monkeypatch, 5, lambda: stages.pretrain(parts))
    resumed = torch.load(stages.pretrain(parts), weights_only=True)["model"]
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize(
    ("curve", "warned"),
    [([10, 20, 30, 40], True), ([10, 30, 39.5, 40], False), ([10, 40], False), ([], False)],
)
def test_a_start_that_still_rises_is_said(
    trained, data_root, tiny_preset, tmp_path, capsys, curve, warned
):
    content = torch.load(trained, weights_only=True)
    start = tmp_path / "start.pth"
    torch.save(
        content | {"source_validation": [(n, value) for n, value in enumerate(curve)]}, start
    )
    job = replace(
        job_of(tiny_preset("adapt.iterations=1"), data_root, tmp_path / "run"), reporter=Reporter()
    )
    stages.adapt(job, start)
    said = " ".join(capsys.readouterr().err.split())
    assert ("was not trained out" in said) == warned
    if warned:
        assert "still rose from 30.0 to 40.0" in said and "pretrain.iterations" in said


@pytest.mark.parametrize(
    ("tune", "norms", "warned"),
    [("frozen", "mixed", True), ("frozen", "frozen", False), ("full", "mixed", False)],
)
def test_a_start_that_kept_its_norms_is_said_before_they_become_the_targets(
    trained, data_root, tiny_preset, tmp_path, capsys, tune, norms, warned
):
    content = torch.load(trained, weights_only=True)
    content["preset"]["model"]["tune"] = tune
    torch.save(content, tmp_path / "start.pth")
    preset = tiny_preset("adapt.iterations=1", f"adapt.batch_norm={norms}", method="minent")
    job = replace(job_of(preset, data_root, tmp_path / "run"), reporter=Reporter())
    stages.adapt(job, tmp_path / "start.pth")
    said = " ".join(capsys.readouterr().err.split())
    assert ("was trained on batch norm that kept its statistics" in said) == warned
