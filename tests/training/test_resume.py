"""A run that is stopped, by any signal, ends with the same bits as one that never was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from fgda_cli.methods.registry import method_class, method_names
from fgda_cli.models import checkpoint
from fgda_cli.runtime.errors import FgdaError, Stopped, UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import stages
from tests.helpers import QUIET, crash_at, fgda, same, set_flags, stop_at


@pytest.fixture(scope="module")
def job(data_root, tiny_preset, tmp_path_factory):
    torch.set_num_threads(1)
    return stages.Job(
        tiny_preset(),
        data_root,
        tmp_path_factory.mktemp("runs") / "pre",
        device="cpu",
        reporter=QUIET,
    )


@pytest.fixture(scope="module")
def pretrained(job) -> Path:
    return stages.pretrain(job)


# all that adapt, but those of one iteration, which can only be begun anew
STEPWISE = [
    name
    for name in method_names()
    if method_class(name).uses_target and method_class(name).iterations is None
]


@pytest.mark.parametrize(
    ("method", "iteration"),
    [*((name, 3) for name in STEPWISE), ("cbst", 1), ("fgda", 1), ("mic", 1)],
    # checkpoints are written after every second iteration
)
def test_an_adaptation_cut_short_ends_bit_identical(
    job, pretrained, tmp_path, monkeypatch, tiny_preset, method, iteration
):
    ours = replace(job, preset=tiny_preset(method=method), out=tmp_path / "whole")
    whole = stages.adapt(ours, pretrained)
    crash_at(
        monkeypatch,
        iteration,
        lambda: stages.adapt(replace(ours, out=tmp_path / "parts"), pretrained),
    )
    parts = stages.adapt(replace(ours, out=tmp_path / "parts"), pretrained)
    assert same(whole, parts)
    # no log line is lost or doubled
    for folder in ("whole", "parts"):
        lines = [
            json.loads(line)
            for line in (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        ]
        assert [line["iteration"] for line in lines if "lr" in line] == [1, 2, 3, 4, 5, 6]


def test_what_layers_drop_is_dropped_again_by_a_resumed_run(
    job, pretrained, tmp_path, monkeypatch, tiny_preset
):
    """Dropout draws from torch's own generator: from (seed, iteration), whatever else drew from it
    before.
    """
    ours = replace(
        job, preset=tiny_preset("model.dropout=0.3", method="mic"), out=tmp_path / "whole"
    )
    torch.manual_seed(1)
    whole = stages.adapt(ours, pretrained)
    plain = stages.adapt(
        replace(job, preset=tiny_preset(method="mic"), out=tmp_path / "plain"), pretrained
    )
    assert not same(whole, plain)
    torch.manual_seed(2)
    crash_at(
        monkeypatch, 3, lambda: stages.adapt(replace(ours, out=tmp_path / "parts"), pretrained)
    )
    assert same(whole, stages.adapt(replace(ours, out=tmp_path / "parts"), pretrained))


def test_a_round_of_fda_resumes_and_notices_other_labellers(
    job, pretrained, tmp_path, monkeypatch, tiny_preset
):
    """Thresholds are found once a set of networks; the networks that label are not saved with the
    run. A run is not resumed where another network lies at the path of one that labelled.
    """
    content = checkpoint.load(pretrained)
    content["model"] = {
        name: value + 0.01 if "head" in name else value for name, value in content["model"].items()
    }
    checkpoint.save(tmp_path / "other.pth", content)
    ours = replace(
        job,
        preset=tiny_preset(
            f"method.labels_from=['{pretrained}','{tmp_path / 'other.pth'}']", method="fda"
        ),
        out=tmp_path / "whole",
    )
    whole = stages.adapt(ours, pretrained)
    found = list((tmp_path / "whole/offline").glob("thresholds-*/thresholds.pth"))
    assert len(found) == 1 and not any("labeller" in key for key in checkpoint.load(whole)["model"])
    crash_at(
        monkeypatch, 3, lambda: stages.adapt(replace(ours, out=tmp_path / "parts"), pretrained)
    )
    assert same(whole, stages.adapt(replace(ours, out=tmp_path / "parts"), pretrained))
    lines = [
        json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()
    ]
    assert all("pseudo" in line for line in lines if "seg" in line)

    mine = tmp_path / "mine.pth"
    shutil.copy(pretrained, mine)
    twice = tiny_preset(f"method.labels_from=['{pretrained}','{mine}']", method="fda")
    with pytest.raises(UsageError, match="mine.pth holds the same network as .*count twice"):
        stages.check_adapt(replace(ours, preset=twice, out=tmp_path / "twice"))
    ours = replace(
        ours,
        preset=tiny_preset(f"method.labels_from=['{mine}']", method="fda"),
        out=tmp_path / "other",
    )
    crash_at(monkeypatch, 3, lambda: stages.adapt(ours, pretrained))
    shutil.copy(whole, mine)
    with pytest.raises(UsageError, match=r"made of something else .*\(by\)"):
        stages.adapt(ours, pretrained)
    (product,) = (ours.out / "offline").glob("thresholds-*")
    (product / "product.json").write_text("{")
    with pytest.raises(UsageError, match=r"cannot read .*product\.json"):
        stages.adapt(ours, pretrained)
    shutil.copy(pretrained, mine)
    (product / "thresholds.pth").write_bytes(b"damaged")
    with pytest.raises(FgdaError, match=r"thresholds\.pth is no checkpoint"):
        stages.adapt(ours, pretrained)
    shutil.rmtree(product.parent)
    reporter = Reporter(quiet=True)
    stages.adapt(replace(ours, reporter=reporter), pretrained)
    assert [text for text in reporter.warned if "thresholds: what the run to resume" in text]
    mine.unlink()
    with pytest.raises(FgdaError, match="no such file"):
        stages.check_adapt(ours)


@pytest.mark.parametrize("signum, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_write_a_checkpoint_of_that_very_iteration(
    job, pretrained, tmp_path, monkeypatch, signum, code
):
    whole = stages.adapt(replace(job, out=tmp_path / "whole"), pretrained)
    with monkeypatch.context() as patch:
        stop_at(patch, 2, lambda: os.kill(os.getpid(), signum))
        with pytest.raises(Stopped) as caught:
            stages.adapt(replace(job, out=tmp_path / "parts"), pretrained)
    assert caught.value.exit_code == code
    assert checkpoint.load(tmp_path / "parts/checkpoints/last.pth")["train"]["iteration"] == 3
    assert same(whole, stages.adapt(replace(job, out=tmp_path / "parts"), pretrained))


@pytest.mark.parametrize("iteration", [1, 2, 3])
def test_a_validation_is_neither_lost_nor_doubled_by_a_stop(
    job, pretrained, tmp_path, monkeypatch, tiny_preset, iteration
):
    ours = replace(job, preset=tiny_preset("adapt.evaluate_every=2"), out=tmp_path / "run")
    with monkeypatch.context() as patch:
        stop_at(patch, iteration, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Stopped):
            stages.adapt(ours, pretrained)
    stages.adapt(ours, pretrained)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "validation" in line] == [2, 4, 6]


def test_kill_9_of_a_real_process(data_root, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(out):
        flags = set_flags("pretrain.iterations=40", "pretrain.checkpoint_every=3")
        return [
            sys.executable,
            "-m",
            "fgda_cli",
            "pretrain",
            "--preset",
            "playground",
            "--data-root",
            str(data_root),
            "--out",
            str(out),
            "--device",
            "cpu",
            *flags,
        ]

    whole = fgda(*command(tmp_path / "whole")[3:])
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        command(tmp_path / "parts"),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    last = tmp_path / "parts/checkpoints/last.pth"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
    done = fgda(*command(tmp_path / "parts")[3:])
    assert done.returncode == 0 and "resuming" in done.stderr
    assert same(tmp_path / "whole/checkpoints/final.pth", tmp_path / "parts/checkpoints/final.pth")


def test_a_run_does_not_go_on_with_other_data(job, pretrained, data_root, tmp_path, monkeypatch):
    """Prepared again at another size, with other labels or another image; a copy, or another split,
    changes nothing.
    """
    shutil.copytree(data_root, tmp_path / "data")
    ours = replace(job, data_root=tmp_path / "data", out=tmp_path / "run")
    crash_at(monkeypatch, 3, lambda: stages.adapt(replace(ours, data_root=data_root), pretrained))
    manifest = tmp_path / "data/playground-street/manifest.json"
    tree = json.loads(manifest.read_text())
    for change in (
        lambda tree: tree["splits"]["train"].pop(),
        lambda tree: tree["splits"]["train"][0].update(size=[640, 320]),
        lambda tree: tree.update(size=[32, 32]),
    ):
        other = json.loads(manifest.read_text())
        change(other)
        manifest.write_text(json.dumps(other))
        with pytest.raises(UsageError, match="other images or labels than the data sets hold now"):
            stages.adapt(ours, pretrained)
        manifest.write_text(json.dumps(tree))
    tree["splits"]["more"] = tree["splits"]["val"]
    manifest.write_text(json.dumps(tree))
    assert stages.adapt(ours, pretrained).is_file()
    record = yaml.safe_load((tmp_path / "run/preset.yaml").read_text())
    # as an earlier version wrote it
    del record["stage"]["data"]
    (tmp_path / "run/preset.yaml").write_text(yaml.safe_dump(record))
    assert stages.adapt(ours, pretrained).is_file()


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(
    job, pretrained, tmp_path, tiny_preset
):
    assert same(pretrained, stages.pretrain(replace(job, out=tmp_path / "again")))
    other = replace(job, preset=tiny_preset("run.seed=1"), out=tmp_path / "other")
    assert not same(pretrained, stages.pretrain(other))


def test_adaptation_reads_no_target_label(job, pretrained, data_root, tmp_path):
    """With every label of the street domain deleted, adaptation runs and gives the same weights."""
    copy = tmp_path / "data"
    shutil.copytree(data_root, copy)
    for labels in (copy / "playground-street").glob("*/labels"):
        shutil.rmtree(labels)
    manifest = copy / "playground-street/manifest.json"
    tree = json.loads(manifest.read_text())
    for split in tree["splits"].values():
        for item in split:
            item["label"] = item["counts"] = None
    manifest.write_text(json.dumps(tree))
    with_labels = stages.adapt(replace(job, out=tmp_path / "with"), pretrained)
    without = stages.adapt(replace(job, data_root=copy, out=tmp_path / "without"), pretrained)
    assert same(with_labels, without)


def test_another_preset_on_the_same_folder_is_refused_with_the_keys(job, pretrained, tiny_preset):
    other = replace(job, preset=tiny_preset("optim.lr=0.123"))
    with pytest.raises(UsageError, match=r"optim\.lr"):
        stages.pretrain(other)


def test_fresh_starts_over_and_leaves_foreign_files(job, pretrained, tmp_path):
    mine = replace(job, out=tmp_path / "run")
    stages.pretrain(mine)
    (tmp_path / "run/notes.md").write_text("mine")
    stages.pretrain(replace(mine, fresh=True))
    assert (tmp_path / "run/notes.md").read_text() == "mine"
    with pytest.raises(UsageError, match="holds no run"):
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos/a.jpg").write_bytes(b"x")
        stages.pretrain(replace(mine, out=tmp_path / "photos"))


def test_a_nan_loss_stops_with_the_iteration_and_the_last_good_checkpoint(
    job, pretrained, tmp_path, monkeypatch
):
    from fgda_cli.methods.base import Method

    original = Method.segmentation_losses
    calls = []

    def sometimes_nan(self, output, labels):
        calls.append(1)
        terms = original(self, output, labels)
        return {"seg": terms["seg"] * float("nan")} if len(calls) == 4 else terms

    monkeypatch.setattr(Method, "segmentation_losses", sometimes_nan)
    with pytest.raises(
        FgdaError,
        match=r"'seg' is not finite at iteration 4; the last good checkpoint is .*last\.pth",
    ):
        stages.pretrain(replace(job, out=tmp_path / "nan"))
    assert checkpoint.load(tmp_path / "nan/checkpoints/last.pth")["train"]["iteration"] == 2


def test_a_compiled_run_learns_what_an_uncompiled_one_learns(
    job, tmp_path, tiny_preset, monkeypatch
):
    """What torch captures of the encoder, without its C++ compiler, whose part
    tests/test_benchmarks.py runs.
    """
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module: compiled(module, backend="aot_eager")
    )
    small = (
        "model.backbone=timm:test_resnet",
        "model.output_stride=native",
        "model.width=64",
        "pretrain.iterations=2",
    )
    finals = []
    for wanted in ("false", "true"):
        preset = tiny_preset(*small, "pretrain.batch_norm=statistics", f"run.compile={wanted}")
        finals.append(
            checkpoint.load(stages.pretrain(replace(job, preset=preset, out=tmp_path / wanted)))[
                "model"
            ]
        )
    start = checkpoint.build_model(preset.model, 19).state_dict()
    for key, value in finals[0].items():
        torch.testing.assert_close(finals[1][key], value, rtol=1e-4, atol=1e-5)
    assert any(not torch.equal(value, start[key]) for key, value in finals[0].items())


def test_run_folder_holds_what_the_contract_names(pretrained):
    run = pretrained.parent.parent
    assert {p.name for p in (run / "checkpoints").iterdir()} == {
        "last.pth",
        "best.pth",
        "final.pth",
    }
    assert (
        (run / "preset.yaml").is_file()
        and (run / "log.txt").is_file()
        and list(run.glob("events.out.tfevents.*"))
    )
    record = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert {"iteration", "seg", "lr", "images_per_second"} <= record.keys()


def test_a_run_made_before_a_key_came_to_presets_is_still_the_same_run(job, pretrained, tmp_path):
    """A finished run of an older version lacks the key; its default is what that version did."""
    run = tmp_path / "old"
    shutil.copytree(pretrained.parent.parent, run)
    record = yaml.safe_load((run / "preset.yaml").read_text())
    assert record["model"].pop("align_corners") is True
    (run / "preset.yaml").write_text(yaml.safe_dump(record))
    assert stages.pretrain(replace(job, out=run)) == run / "checkpoints/final.pth"
    record["model"]["align_corners"] = False
    (run / "preset.yaml").write_text(yaml.safe_dump(record))
    with pytest.raises(UsageError, match=r"other settings: model\.align_corners"):
        stages.pretrain(replace(job, out=run))
