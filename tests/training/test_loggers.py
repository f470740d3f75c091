"""Scalars beyond metrics.jsonl: what each library is told, runs that go on after a resume, a
missing package said at once.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch

from fgda_cli.runtime.errors import FgdaError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import stages
from fgda_cli.training.loggers import _flat, run_id
from tests.helpers import crash_at, same


@pytest.fixture
def told(monkeypatch):
    """Stand-ins of both libraries that note what they are told."""
    calls = []
    wandb = ModuleType("wandb")
    mlflow = ModuleType("mlflow")
    wandb.init = lambda **how: (
        calls.append(("wandb", "init", how))
        or SimpleNamespace(
            log=lambda values, step: calls.append(("wandb", step, values)),
            finish=lambda: calls.append(("wandb", "finish", None)),
        )
    )
    mlflow.set_tracking_uri = lambda uri: calls.append(("mlflow", "uri", uri))
    mlflow.set_experiment = lambda name: calls.append(("mlflow", "experiment", name))
    mlflow.start_run = lambda run_id, run_name: (
        calls.append(("mlflow", "start", (run_id, run_name)))
        or SimpleNamespace(info=SimpleNamespace(run_id="the-run"))
    )
    mlflow.log_params = lambda values: calls.append(("mlflow", "params", values))
    mlflow.log_metrics = lambda values, step: calls.append(("mlflow", step, values))
    mlflow.end_run = lambda: calls.append(("mlflow", "end", None))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "sqlalchemy", ModuleType("sqlalchemy"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return calls


@pytest.fixture
def job(data_root, tiny_preset, tmp_path):
    torch.set_num_threads(1)
    preset = tiny_preset("run.loggers=[wandb, mlflow]", "adapt.evaluate_every=3")
    return stages.Job(
        preset, data_root, tmp_path / "run", device="cpu", reporter=Reporter(quiet=True)
    )


def test_both_are_told_losses_rates_and_validations(job, trained, told):
    stages.adapt(job, trained)
    for name in ("wandb", "mlflow"):
        steps = {
            step: values for who, step, values in told if who == name and isinstance(step, int)
        }
        assert set(steps) == {1, 2, 3, 4, 5, 6}
        keys = {
            key
            for who, step, values in told
            if who == name and isinstance(step, int)
            for key in values
        }
        assert {"loss/seg", "lr/segmentation", "validation/miou"} <= keys
    first = next(how for who, what, how in told if (who, what) == ("wandb", "init"))
    assert (
        first["id"] == run_id(job.out)
        and first["resume"] == "allow"
        and first["config"]["name"] == "playground"
    )
    params = next(values for who, what, values in told if (who, what) == ("mlflow", "params"))
    assert params["optim.lr"] == str(job.preset.optim.lr)
    assert told[-2:] == [("wandb", "finish", None), ("mlflow", "end", None)]
    assert ("mlflow", "uri", f"sqlite:///{job.out / 'mlflow.db'}") in told
    # TensorBoard was not asked for
    assert not list(job.out.glob("events.out.*"))


def test_a_resumed_run_goes_on_in_the_same(job, trained, told, monkeypatch, tmp_path):
    whole = stages.adapt(replace(job, out=tmp_path / "whole"), trained)
    told.clear()
    crash_at(monkeypatch, 3, lambda: stages.adapt(job, trained))
    assert same(whole, stages.adapt(job, trained))
    starts = [how for who, what, how in told if (who, what) == ("mlflow", "start")]
    assert starts[0][0] is None and starts[1] == ("the-run", None)
    ids = {how["id"] for who, what, how in told if (who, what) == ("wandb", "init")}
    assert ids == {run_id(job.out)}


def test_loggers_change_no_weight_and_no_identity(job, trained, tiny_preset, told, tmp_path):
    final = stages.adapt(job, trained)
    plain = replace(job, preset=tiny_preset("adapt.evaluate_every=3"), out=tmp_path / "plain")
    assert same(final, stages.adapt(plain, trained))
    assert list(plain.out.glob("events.out.*"))
    # the same run, whatever logs it
    assert stages.adapt(replace(job, preset=plain.preset), trained) == final


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_said_before_training(job, trained, tiny_preset, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        FgdaError,
        match=rf"run.loggers: {name} needs the package {name}: pip install 'fgda\[{name}\]'",
    ):
        stages.adapt(replace(job, preset=tiny_preset(f"run.loggers=[{name}]")), trained)
    assert not job.out.exists()


def test_settings_are_flattened_by_key():
    assert _flat({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": {}}) == {
        "a.b": 1,
        "a.c.d": [1, 2],
        "e": {},
    }


def test_mlflow_without_its_store_is_refused_before_training(
    job, trained, monkeypatch, tiny_preset, tmp_path
):
    """Case 45: it failed at the first line of the log."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(
        FgdaError, match=r"mlflow needs the package sqlalchemy: pip install 'fgda\[mlflow\]'"
    ):
        stages.adapt(
            replace(job, preset=tiny_preset("run.loggers=[mlflow]"), out=tmp_path / "run"), trained
        )
    assert not (tmp_path / "run").exists()
