"""What picks best.pth: labels, or signals without them; ending in time or when nothing gets better;
the verdict at the end.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from typing import get_args

import pytest
import torch

from fgda_cli.data.geometry import InputRule
from fgda_cli.data.store import open_dataset
from fgda_cli.metrics import COLLAPSED
from fgda_cli.models import checkpoint
from fgda_cli.runtime.devices import Precision
from fgda_cli.runtime.errors import UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.signals.score import Kind, score
from fgda_cli.training import stages, validation
from fgda_cli.training.stopping import LOOKS, PLANNED_AFTER, SCORING, WARM_UP, Clock
from tests.helpers import crash_at, fgda, same, set_flags

EVERY = ("adapt.evaluate_every=2",)
BLIND = ("data.evaluation.dataset=nowhere",)


@pytest.fixture
def job(data_root, tiny_preset, tmp_path):
    torch.set_num_threads(1)
    return stages.Job(
        tiny_preset(*EVERY),
        data_root,
        tmp_path / "run",
        device="cpu",
        reporter=Reporter(quiet=True, decisions=[]),
    )


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def validations(folder):
    return {
        line["iteration"]: line["validation"] for line in records(folder) if "validation" in line
    }


def test_with_labels_they_pick_and_it_is_said(job, trained):
    final = stages.adapt(job, trained)
    assert (
        "best.pth is picked by the labels of playground-street (run.select: auto)"
        in job.reporter.decisions
    )
    assert all(
        set(found) >= {"miou"} and "label_free" not in found
        for found in validations(job.out).values()
    )
    assert checkpoint.load(final)["verdict"]["verdict"] in get_args(Kind)


def test_without_labels_signals_pick_and_it_is_said(job, trained, tiny_preset):
    stages.adapt(replace(job, preset=tiny_preset(*EVERY, *BLIND)), trained)
    assert (
        "best.pth is picked by signals without labels (run.select: auto)" in job.reporter.decisions
    )
    found = validations(job.out)
    assert list(found) == [2, 4, 6] and all(set(one) == {"label_free"} for one in found.values())
    best = checkpoint.load(job.out / "checkpoints/best.pth")
    assert best["metrics"]["label_free"] == max(one["label_free"] for one in found.values())
    assert best["iteration"] == max(
        found, key=lambda number: (found[number]["label_free"], -number)
    )


def test_the_network_of_the_last_validation_is_not_looked_at_twice(
    job, trained, tiny_preset, monkeypatch
):
    looked = []
    original = validation.observe
    monkeypatch.setattr(validation, "observe", lambda *given: looked.append(1) or original(*given))
    final = stages.adapt(replace(job, preset=tiny_preset(*EVERY, *BLIND)), trained)
    # the start, iterations 2, 4 and 6; the verdict is on the last
    assert len(looked) == 4
    assert checkpoint.load(final)["verdict"]["score"] == pytest.approx(
        validations(job.out)[6]["label_free"], abs=1e-3
    )


def test_labels_that_are_there_are_not_asked_when_told_so(job, trained, tiny_preset):
    stages.adapt(replace(job, preset=tiny_preset(*EVERY, "run.select=label-free")), trained)
    found = validations(job.out)
    assert all(set(one) >= {"label_free", "miou"} for one in found.values())  # logged, as ever
    best = checkpoint.load(job.out / "checkpoints/best.pth")
    assert best["metrics"]["label_free"] == max(one["label_free"] for one in found.values())


def test_labels_that_are_not_there_are_refused(job, trained, tiny_preset):
    with pytest.raises(UsageError, match="run.select: labels needs labelled images"):
        stages.adapt(replace(job, preset=tiny_preset(*BLIND, "run.select=labels")), trained)


def test_looking_changes_no_weight(job, trained, tiny_preset, tmp_path):
    blind = stages.adapt(replace(job, preset=tiny_preset(*EVERY, *BLIND)), trained)
    plain = stages.adapt(
        replace(job, preset=tiny_preset("adapt.evaluate_every=99"), out=tmp_path / "plain"), trained
    )
    assert same(blind, plain)


@pytest.mark.parametrize("iteration", [1, 3, 5])
def test_a_resumed_run_is_judged_against_the_same_start(
    job, trained, tiny_preset, tmp_path, monkeypatch, iteration
):
    ours = replace(job, preset=tiny_preset(*EVERY, *BLIND))
    whole = stages.adapt(ours, trained)
    crash_at(
        monkeypatch, iteration, lambda: stages.adapt(replace(ours, out=tmp_path / "parts"), trained)
    )
    parts = stages.adapt(replace(ours, out=tmp_path / "parts"), trained)
    assert same(whole, parts) and validations(job.out) == validations(tmp_path / "parts")
    first, second = (checkpoint.load(path) for path in (whole, parts))
    assert first["verdict"] == second["verdict"]
    assert same(job.out / "checkpoints/best.pth", tmp_path / "parts/checkpoints/best.pth")


def scripted(monkeypatch, scores):
    """Scores of the validations in turn, whatever the network does."""
    waiting = iter(scores)

    def score(self, state, iteration):
        self.after = self.look(state)
        self.before = self.before or self.after
        return next(waiting, COLLAPSED)

    monkeypatch.setattr(validation.LabelFree, "score", score)


def test_patience_ends_with_the_best_of_the_validations(job, trained, tiny_preset, monkeypatch):
    scripted(monkeypatch, [1.0, 3.0, 2.0, 2.5, 9.0])
    preset = tiny_preset("adapt.evaluate_every=1", "adapt.iterations=6", *BLIND, "run.patience=2")
    final = stages.adapt(replace(job, preset=preset), trained)
    assert list(validations(job.out)) == [1, 2, 3, 4]
    assert checkpoint.load(final)["iteration"] == 2
    assert "ended at iteration 4 of 6 with the best, that of 2" in job.reporter.decisions
    assert same(final, job.out / "checkpoints/best.pth")


def test_a_time_limit_ends_in_time_with_the_best_and_a_larger_one_goes_on(
    job, trained, tiny_preset
):
    """Learning rates decay until the limit, and a finished run with a larger limit is not "finished
    already".
    """
    long = (
        "adapt.iterations=100000",
        "adapt.evaluate_every=99999",
        "adapt.log_every=1",
        "run.select=label-free",
    )
    limited = replace(job, preset=tiny_preset(*long, "run.time_limit=8s"))
    start = time.monotonic()
    final = stages.adapt(limited, trained)
    assert time.monotonic() - start < 20
    scores = validations(job.out)
    content = checkpoint.load(final)
    assert 2 <= len(scores) <= LOOKS + 2 and content["iteration"] in scores
    assert content["metrics"]["label_free"] == max(one["label_free"] for one in scores.values())
    last = checkpoint.load(job.out / "checkpoints/last.pth")["train"]
    assert last["planned"] and last["iteration"] <= last["planned"] < 100000 and last["spent"] < 9
    assert any(
        f"has room for {last['planned']} of 100000 iterations" in text
        for text in job.reporter.decisions
    )
    rates = [one["lr"]["segmentation"] for one in records(job.out) if "lr" in one]
    # without a plan it would hardly have moved
    assert rates[-1] < 0.5 * rates[0]
    assert stages.adapt(limited, trained) == final  # it is finished
    again = replace(job, preset=tiny_preset(*long, "run.time_limit=13s"))
    assert stages.adapt(again, trained) == final
    more = checkpoint.load(job.out / "checkpoints/last.pth")["train"]
    assert more["iteration"] > last["iteration"] and 9 < more["spent"] < 14


def test_a_stopped_run_with_a_larger_limit_is_planned_anew(job, trained, tiny_preset, monkeypatch):
    long = ("adapt.iterations=100000", "adapt.evaluate_every=99999", "run.select=label-free")
    monkeypatch.setattr(
        Clock, "iterations_that_fit", lambda clock, iteration: 40 if clock.limit < 900 else 6
    )
    crash_at(
        monkeypatch,
        5,
        lambda: stages.adapt(
            replace(job, preset=tiny_preset(*long, "run.time_limit=800s")), trained
        ),
    )
    assert checkpoint.load(job.out / "checkpoints/last.pth")["train"]["planned"] == 40
    stages.adapt(replace(job, preset=tiny_preset(*long, "run.time_limit=1000s")), trained)
    assert checkpoint.load(job.out / "checkpoints/last.pth")["train"]["planned"] == 6


def test_a_clock_plans_by_the_speed_without_validations(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("fgda_cli.training.stopping.time.monotonic", lambda: now[0])
    clock = Clock(1000.0)
    for iteration in range(30):
        # the first one is slow
        now[0] += 5 if iteration else 60
        fits = clock.iterations_that_fit(iteration + 1)
        assert (fits is None) == (iteration + 1 < 1 + WARM_UP + 1000 * PLANNED_AFTER / 5)
        if fits:
            break
        with clock.looking():
            now[0] += 1
    assert fits == iteration + 1 + int((1 - SCORING) * (1000 - now[0] - 2.5 - 1) / 5)
    # a second ago was one that took a second
    assert not clock.affords_a_look()
    now[0] += 9
    assert clock.affords_a_look()


def test_a_clock_without_a_limit_never_strikes():
    clock = Clock()
    assert not clock.is_out_of_time() and not clock.is_time_to_look()
    clock = Clock(10.0, started=time.monotonic() - 9.5)
    assert clock.is_out_of_time() and clock.is_time_to_look()


@pytest.mark.parametrize(
    "text, seconds", [("90", 90.0), ("30m", 1800.0), ("1.5h", 5400.0), ("45s", 45.0)]
)
def test_times_are_written_as_people_write_them(tiny_preset, text, seconds):
    assert tiny_preset(f"run.time_limit={text}").run.time_limit == seconds


@pytest.mark.parametrize("text", ["soon", "0", "-3m", "3 days"])
def test_other_times_are_refused(tiny_preset, text):
    with pytest.raises(UsageError, match="run.time_limit"):
        tiny_preset(f"run.time_limit={text}")


@pytest.mark.parametrize(
    "method, more", [("adabn", ()), ("fgda", ("adapt.batch_norm=mixed", "adapt.iterations=1"))]
)
def test_the_verdict_compares_with_the_checkpoint_that_adaptation_starts_from(
    job, trained, tiny_preset, method, more
):
    """Batch norm statistics that change before the first step counted as the start's: adabn always
    had 0.
    """
    preset = tiny_preset(*EVERY, *more, method=method)
    final = stages.adapt(replace(job, preset=preset), trained)
    content = checkpoint.load(final)
    frames = validation.frames_of(
        open_dataset(job.data_root, "playground-street"),
        "train",
        InputRule(preset.data.target.size),
        count=validation.FRAMES,
    )
    before, after = (
        validation.observe(
            checkpoint.model_of(one, "")[0].eval(), frames, Precision("fp32", torch.device("cpu"))
        )
        for one in (checkpoint.load(trained), content)
    )
    assert (
        content["verdict"]["score"] == pytest.approx(score(before, after), abs=2e-3)
        and content["verdict"]["score"] != 0
    )


def test_every_validated_checkpoint_is_kept_when_asked(job, trained, tiny_preset):
    preset = tiny_preset(*EVERY, "run.keep=true")
    final = stages.adapt(replace(job, preset=preset), trained)
    kept = sorted(path.name for path in (job.out / "checkpoints").glob("iteration-*"))
    assert kept == ["iteration-000002.pth", "iteration-000004.pth", "iteration-000006.pth"]
    assert same(final, job.out / "checkpoints" / kept[-1])
    stages.adapt(replace(job, preset=tiny_preset("run.keep=false"), fresh=True), trained)
    assert not list((job.out / "checkpoints").glob("iteration-*"))


def test_the_command_line_ends_within_its_budget_and_says_the_verdict(data_root, trained, tmp_path):
    done = fgda(
        "adapt",
        "--init",
        trained,
        "--data-root",
        data_root,
        "--out",
        tmp_path / "run",
        "--budget",
        "8s",
        *set_flags("adapt.iterations=100000", "adapt.evaluate_every=9999"),
    )
    assert done.returncode == 0, done.stderr
    assert "without labels" in done.stderr and "ended at iteration" in done.stderr
    log = (tmp_path / "run/log.txt").read_text()
    assert (
        "best.pth is picked by signals without labels (run.select: label-free)" in log
        and "without labels: " in log
    )
    done = fgda(
        "adapt",
        "--init",
        trained,
        "--data-root",
        data_root,
        "--out",
        tmp_path / "other",
        "--budget",
        "soon",
    )
    assert done.returncode == 2 and "--budget soon: write a number and its unit" in done.stderr
    done = fgda(
        "adapt",
        "--init",
        trained,
        "--data-root",
        data_root,
        "--out",
        tmp_path / "other",
        "--budget",
        "30",
    )
    assert done.returncode == 2 and "30m" in done.stderr  # of what?
    done = fgda(
        "adapt",
        "--init",
        trained,
        "--data-root",
        data_root,
        "--out",
        tmp_path / "run",
        *set_flags("adapt.iterations=100000", "adapt.evaluate_every=9999"),
    )
    assert (
        done.returncode == 2
        and "give the --budget that the run was begun with, or a larger one" in done.stderr
    )


@pytest.fixture(scope="module")
def adapted(data_root, trained, tiny_preset, tmp_path_factory):
    """A run, and one whose head gives everything to one class."""
    out = tmp_path_factory.mktemp("adapted")
    job = stages.Job(
        tiny_preset(), data_root, out / "good", device="cpu", reporter=Reporter(quiet=True)
    )
    final = stages.adapt(job, trained)
    shutil.copytree(out / "good", out / "bad")
    content = checkpoint.load(final)
    for name, value in content["model"].items():
        if name.startswith("head.convs") and name.endswith("bias"):
            value[3] += 50
    checkpoint.save(out / "bad/checkpoints/final.pth", content)
    return out


def test_verdict_by_command(adapted, data_root, trained, tmp_path):
    good, bad = (adapted / name / "checkpoints/final.pth" for name in ("good", "bad"))
    done = fgda(
        "verdict",
        good,
        bad,
        "--data-root",
        data_root,
        "--json",
        tmp_path / "v.json",
        "--report",
        tmp_path / "page",
    )
    assert done.returncode == 0, done.stderr
    assert f"baseline: {trained}, from which the checkpoints were adapted" in done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines()) and "collapsed" in done.stdout
    base, first, second = json.loads((tmp_path / "v.json").read_text())["checkpoints"]
    assert (
        base["verdict"] == "baseline"
        and second["verdict"] == "collapsed or harmful"
        and second["score"] == COLLAPSED
    )
    assert (
        first["source_miou"] is not None
        and 0 <= first["prior_distance"] <= 1
        and "feature_distance" in first["signals"]
    )
    page = (tmp_path / "page/index.html").read_text()
    assert '"sort": "changed"' in page and page.count('"photo"') == 10


def test_verdict_on_photographs_of_ones_own(adapted, data_root, trained, tmp_path, raw_playground):
    photos = raw_playground / "street/leftImg8bit"
    done = fgda(
        "verdict",
        adapted / "good/checkpoints/final.pth",
        "--images",
        photos,
        "--baseline",
        trained,
        "--data-root",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "no look at the source" in done.stderr and "images" in done.stdout


def test_verdict_asks_for_what_it_cannot_know(adapted, data_root, trained, tmp_path):
    alone = tmp_path / "alone.pth"
    shutil.copy(adapted / "good/checkpoints/final.pth", alone)
    done = fgda("verdict", alone, "--data-root", data_root)
    assert done.returncode == 2 and "--baseline CKPT" in done.stderr
    done = fgda("verdict", trained, "--baseline", trained, "--data-root", data_root)
    assert done.returncode == 2 and "is the baseline itself" in done.stderr
    done = fgda("verdict", alone, "--images", tmp_path, "--data", "x")
    assert done.returncode == 2 and "one of them" in done.stderr
