"""`fgda status`: each state of a run, and the command that goes on, which is run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal

import pytest

from fgda_cli.runtime.files import HOLDER, LOCK, alone_in
from fgda_cli.studies.status import runs_below, status_of
from tests.helpers import fgda, same, set_flags, stop_at


def listed(folder, *more):
    return json.loads(fgda("status", folder, "--json", *more).stdout)["runs"]


def test_finished_runs_with_score_and_verdict(trained, tmp_path):
    run = shutil.copytree(trained.parent.parent, tmp_path / "runs/mine/pretrain")
    with open(run / "log.txt", "a") as log:
        log.write(
            "without labels: no clear change (+0.2 points of mIoU to expect, 55 % sure)\niteration"
            " 6: finished\n"
        )
    with open(run / "metrics.jsonl", "a") as log:
        log.write('{"iteration": 6, "validation": {"miou": 41.26}}\n')
    (found,) = listed(tmp_path / "runs")
    assert (
        found["state"] == "finished"
        and found["iteration"] == found["iterations"] == 6
        and found["goes_on"] is None
    )
    assert (found["method"], found["stage"], found["seed"]) == ("source-only", "pretrain", 0)
    assert found["score"] == "mIoU 41.3" and found["verdict"] == "no clear change"
    table = fgda("status", tmp_path / "runs")
    heading, *rows = table.stdout.splitlines()
    assert heading.strip() == "mine (preset playground)" and "[" not in heading
    assert any("pretrain" in row for row in rows) and any("(source-only)" in row for row in rows)
    assert max(map(len, table.stdout.splitlines())) <= 80


def test_the_command_of_a_stopped_run_goes_on_to_the_same_end(data_root, tmp_path, monkeypatch):
    """The whole way: settings of the command line are in the run's own record."""
    command = ["pretrain", "--preset", "playground", "--data-root", data_root, "--device", "cpu"]
    settings = set_flags("optim.lr=0.001")
    whole = tmp_path / "runs/whole"
    cut = tmp_path / "runs/cut"
    assert fgda(*command, *settings, "--out", whole).returncode == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert fgda(*command, *settings, "--out", cut).returncode == 130
    stopped = status_of(cut)
    assert stopped.state == "stopped" and stopped.iteration < stopped.iterations == 6
    # between two lines of the log, too
    (cut / "metrics.jsonl").rename(cut / "metrics.kept")
    assert status_of(cut).iteration == stopped.iteration
    (cut / "metrics.kept").rename(cut / "metrics.jsonl")
    words = shlex.split(stopped.goes_on)
    done = fgda(*words[1:], "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "is read as" not in done.stderr and "are read as" not in done.stderr
    assert same(whole / "checkpoints/final.pth", cut / "checkpoints/final.pth")
    assert {run.state for run in runs_below(tmp_path / "runs")} == {"finished"}


def test_running_and_broken(trained, tmp_path):
    run = shutil.copytree(trained.parent.parent, tmp_path / "runs/one")
    (run / "checkpoints/final.pth").unlink()
    with alone_in(run):
        running = status_of(run)
    assert running.state == "running" and running.seconds is not None and running.goes_on is None
    # Cases 126 and 188: the number of a process says nothing in another container.
    (run / HOLDER).write_text(str(os.getpid()))
    (run / LOCK).touch()
    assert status_of(run).state == "stopped"
    with open(run / "metrics.jsonl", "a") as log:
        # cut short by a crash
        log.write('{"iteration": 7, "se')
    assert status_of(run).iteration == 6
    (run / "checkpoints/last.pth").unlink()
    assert status_of(run).state == "broken" and status_of(run).goes_on.endswith("--fresh")
    (run / "preset.yaml").write_text("name: [")
    assert status_of(run).state == "broken"
    assert "broken" in fgda("status", tmp_path / "runs").stdout


@pytest.mark.parametrize(
    ("folder", "code", "words"), [("none", 2, "no such folder"), (".", 0, "no run")]
)
def test_nothing_to_list(tmp_path, folder, code, words):
    done = fgda("status", folder, cwd=tmp_path)
    assert done.returncode == code and words in done.stdout + done.stderr
