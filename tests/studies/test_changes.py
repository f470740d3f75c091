"""`evaluate` beyond IoU: several processes' counts, what changed between two checkpoints, and the
page of it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fgda_cli.data.classes import ClassMatch, named_classes
from fgda_cli.data.geometry import InputRule
from fgda_cli.inference import evaluate
from fgda_cli.inference.counts import EvaluationCounts, Extras
from fgda_cli.inference.evaluate import EvaluationResult
from fgda_cli.inference.tta import Decision, TestTimeAugmentation
from fgda_cli.models import checkpoint
from fgda_cli.runtime.devices import Precision
from fgda_cli.runtime.distributed import ProcessGroup
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.studies import evaluation
from fgda_cli.studies.changes import change
from fgda_cli.studies.evaluation import share_classes, start_first
from fgda_cli.studies.verdict import start_of
from fgda_cli.training import stages
from fgda_cli.visual.iou_tables import change_table
from tests.helpers import QUIET, fgda

EXTRAS = Extras(boundary=True, calibration=True, resamples=200)
NAMES = ("road", "sky", "car")


def tallied(seed: int, error: float, images: range = range(30)) -> EvaluationCounts:
    """Predictions of which `error` of the pixels are wrong, by (seed, image)."""
    totals = EvaluationCounts(3, EXTRAS)
    for number in images:
        truth = np.random.default_rng([7, number]).integers(0, 3, (12, 16)).astype(np.uint8)
        rng = np.random.default_rng([seed, number])
        ids = np.where(
            rng.random(truth.shape) < error, rng.integers(0, 3, truth.shape), truth
        ).astype(np.uint8)
        totals.add(
            f"image{number}", truth, Decision(ids, None, np.full(truth.shape, 0.9, np.float32))
        )
    return totals


def judged(
    totals: EvaluationCounts, heading: str, data: str = "abc", classes: tuple[str, ...] = NAMES
) -> EvaluationResult:
    ours = named_classes(classes)
    match = ClassMatch(ours, ours)
    rule = InputRule((64, 32))
    views = TestTimeAugmentation()
    return EvaluationResult(
        (heading,),
        "x",
        data,
        split="val",
        match=match,
        counts=totals,
        rule=rule,
        protocol="fgda",
        tta=views,
        seconds=1.0,
    )


def test_a_change_is_clear_only_beyond_its_interval():
    first = judged(tallied(0, 0.3), "a")
    for error, sign in ((0.1, 1), (0.6, -1)):
        found = change(first, judged(tallied(1, error), "b"))
        assert np.sign(found["miou"]["change"]) == sign
        low, high = found["miou"]["interval"]
        assert low < found["miou"]["change"] < high and (low > 0) == (sign > 0)
        assert set(found["helped" if sign > 0 else "harmed"]) == set(NAMES)
    same = change(first, judged(tallied(0, 0.3), "b"))
    assert (
        same["miou"] == {"change": 0.0, "interval": (0.0, 0.0)}
        and not same["harmed"]
        and not same["helped"]
    )


def test_the_images_are_the_same_for_both_whatever_their_order():
    """Paired: a network that errs alike on every image differs by a constant, with a narrow
    interval.
    """
    first = tallied(0, 0.3)
    other = tallied(2, 0.3)
    turned = tallied(2, 0.3, range(29, -1, -1))
    assert np.array_equal(other.drawn_units()[1], turned.drawn_units()[1])
    assert (
        change(judged(first, "a"), judged(other, "b"))["iou"]
        == change(judged(first, "a"), judged(turned, "b"))["iou"]
    )


def test_processes_count_together():
    whole = tallied(0, 0.3)
    parts = [tallied(0, 0.3, range(0, 30, 2)), tallied(0, 0.3, range(1, 30, 2))]

    class Both(ProcessGroup):
        """Adds the other half, as a second process would."""

        def sum(self, values):
            return values + next(self.rest)

        def gather(self, value):
            return [value, [parts[1].images, parts[1].scores]]

    import torch

    group = Both(0, 2)
    theirs = iter(
        torch.from_numpy(part.counts)
        for part in (parts[1].matrix, parts[1].boundary, parts[1].calibration)
    )
    object.__setattr__(group, "rest", theirs)
    parts[0].join(group)
    ours, theirs = (totals.extra_json(NAMES, NAMES) for totals in (parts[0], whole))
    assert ours["boundary"] == theirs["boundary"] and ours["intervals"] == theirs["intervals"]
    assert ours["calibration"]["ece"] == pytest.approx(theirs["calibration"]["ece"])


def test_the_table_marks_what_is_clear(capsys):
    from rich.console import Console

    found = change(judged(tallied(0, 0.3), "a"), judged(tallied(1, 0.1), "b"))
    Console(width=80).print(change_table("a → b", found))
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines) and sum("better" in line for line in lines) == 4


@pytest.fixture(scope="module")
def adapted(data_root, tiny_preset, trained, tmp_path_factory):
    job = stages.Job(
        tiny_preset("adapt.iterations=2"),
        data_root,
        tmp_path_factory.mktemp("a") / "run",
        device="cpu",
        reporter=QUIET,
    )
    return stages.adapt(job, trained)


def test_evaluate_compares_checkpoints_with_intervals_and_a_page(
    data_root, trained, adapted, tmp_path
):
    out = tmp_path / "result.json"
    extras = ("--boundary", "--calibration", "--intervals", "--report", tmp_path / "report")
    done = fgda("evaluate", trained, adapted, "--data-root", data_root, *extras, "--json", out)
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    first, second = json.loads(out.read_text())
    assert "change" not in first and second["change"]["from"] == str(trained)
    over = second["change"]["over"]
    means = [np.mean([one["iou"][name] for name in over]) for one in (first, second)]
    assert second["change"]["miou"]["change"] == pytest.approx(means[1] - means[0])
    assert 0 <= first["calibration"]["ece"] <= 100 and sum(
        first["calibration"]["pixels"]
    ) == np.sum(first["confusion"])
    assert first["intervals"]["miou"] is None and first["intervals"]["images"] == 3
    assert "no intervals: 3 images, at least 10 are needed" in done.stderr
    assert first["data"] == second["data"] and first["views"]["scales"] == [1.0]
    page = (tmp_path / "report/index.html").read_text()
    assert "negative transfer" in page and page.count("confusions</h2>") == 2
    assert [path.name for path in (tmp_path / "report").glob("*.html")] == ["index.html"]


def test_evaluate_alone_says_intervals_and_boundaries_by_class(data_root, trained):
    done = fgda(
        "evaluate", trained, "--data-root", data_root, "--boundary", "--intervals", "--calibration"
    )
    assert done.returncode == 0, done.stderr
    assert (
        "at least 10 are needed" in done.stderr
        and "boundary" in done.stdout
        and "calibration error" in done.stdout
    )
    plain = fgda("evaluate", trained, "--data-root", data_root, "--json")
    assert not {"boundary", "calibration", "intervals", "change"} & json.loads(plain.stdout).keys()


def test_changes_are_counted_from_the_start_where_it_is_known(data_root, adapted, trained):
    """Case 42: the first in the alphabet was taken for the start."""
    reporter = Reporter(quiet=True, decisions=[])
    assert start_first([adapted, trained], reporter) == [trained, adapted]
    assert (
        len(reporter.decisions) == 1
        and "from which the others were adapted" in reporter.decisions[0]
    )
    assert (
        start_first([trained, adapted], reporter) == [trained, adapted]
        and len(reporter.decisions) == 1
    )


def test_a_copied_run_folder_knows_its_start_by_the_weights(adapted, trained, tmp_path):
    """Finding 24 of the first hour: the baseline came from the old place, whatever lay there
    since.
    """
    recorded = yaml.safe_load((adapted.parent.parent / "preset.yaml").read_text())["stage"]["init"]
    run = shutil.copytree(adapted.parent.parent, tmp_path / "copied/adapt")
    moved = run / "checkpoints/final.pth"
    assert start_of(moved).resolve() == trained.resolve()
    beside = tmp_path.joinpath("copied", *Path(recorded).parts[-3:])
    beside.parent.mkdir(parents=True)
    shutil.copy(trained, beside)
    assert start_of(moved) == beside
    # trained again since
    shutil.copy(adapted, beside)
    assert start_of(moved).resolve() == trained.resolve()
    (run / "preset.yaml").write_text("stage: {init: gone.pth, init_hash: abc}\n")
    assert start_of(moved) is None


def test_results_of_other_classes_share_a_mean_and_that_is_said():
    reporter = Reporter(quiet=True, decisions=[])
    results = [judged(tallied(seed, 0.3), "a") for seed in (0, 1)]
    share_classes(results, reporter)
    assert results[0].shared is None and not reporter.decisions
    ours = named_classes(NAMES)
    results[1].match = ClassMatch(ours, named_classes(("sky", "road")))
    share_classes(results, reporter)
    for one in results:
        assert one.shared["classes"] == ["road", "sky"]
        assert one.shared["miou"] == pytest.approx((one.iou["road"] + one.iou["sky"]) / 2)
        low, high = one.shared["interval"]
        assert low < one.shared["miou"] < high
    assert "compared on the 2 that all have (road, sky)" in reporter.decisions[0]


def test_a_change_is_over_the_classes_that_the_truth_shows():
    """Case 110: one stray pixel of a class that no label shows was a change of 27 points."""
    first = tallied(0, 0.0)
    other = tallied(0, 0.0)
    for totals, stray in ((first, 0), (other, 1)):
        truth = np.zeros((12, 16), np.uint8)
        truth[:6] = 1
        ids = truth.copy()
        for name in list(totals.images):
            del totals.images[name]
        totals.matrix.counts[:] = 0
        for number in range(20):
            marked = ids.copy()
            if stray and number == 0:
                marked[0, 0] = 2
            totals.add(
                f"{number}", truth, Decision(marked, None, np.full(truth.shape, 0.9, np.float32))
            )
    found = change(judged(first, "a"), judged(other, "b"))
    assert found["over"] == ["road", "sky"] and abs(found["miou"]["change"]) < 0.2
    assert judged(other, "b").unlabelled_classes() == ["car"]


def test_results_of_different_data_are_not_compared():
    with pytest.raises(ValueError, match="different data"):
        change(judged(tallied(0, 0.3), "a"), judged(tallied(1, 0.1), "b", data="other"))


def test_intervals_draw_sequences_where_there_are_enough():
    totals = EvaluationCounts(3, EXTRAS)
    truth = np.zeros((4, 4), np.uint8)
    for number in range(24):
        totals.add(
            f"drive{number // 2}/{number}",
            truth,
            Decision(truth, None, np.ones(truth.shape, np.float32)),
        )
    what, counts = totals.drawn_units()
    assert what == "sequences" and len(counts) == 12
    few = EvaluationCounts(3, EXTRAS)
    few.add("one", truth, Decision(truth, None, np.ones(truth.shape, np.float32)))
    assert few.extra_json(NAMES, NAMES)["intervals"]["miou"] is None


def test_pages_show_what_was_scored_and_predict_nothing_again(
    data_root, adapted, trained, tmp_path, monkeypatch
):
    """Case 67: the pages beside a report predicted again, without protocol, scales or mean."""
    forwards = []
    before = evaluate.view_logits

    def counted(model, images, size, precision, tta, others=()):
        forwards.append(len(images))
        assert model.input_rule.resample == "bicubic"
        return before(model, images, size, precision=precision, tta=tta, others=others)

    monkeypatch.setattr(evaluate, "view_logits", counted)
    cpu = Precision("fp32", torch.device("cpu"))
    how = {"protocol": "paper", "report": tmp_path / "mean", "mean": True}
    options = evaluation.EvaluationOptions(None, "val", data_root, precision=cpu, **how)
    evaluation.evaluate_all([trained, adapted], options, QUIET)
    assert (
        sum(forwards) == 3
        and f"mean of {trained}, {adapted}" in (tmp_path / "mean/index.html").read_text()
    )
    forwards.clear()
    how = {"protocol": "paper", "report": tmp_path / "two", "extras": Extras(resamples=20)}
    options = evaluation.EvaluationOptions(None, "val", data_root, precision=cpu, **how)
    evaluation.evaluate_all([trained, adapted], options, QUIET)
    assert sum(forwards) == 6 and (tmp_path / "two/index.html").is_file()
    assert not (tmp_path / "two/.fgda-predictions").exists()


def test_checkpoints_of_different_data_are_refused_before_work(
    data_root, adapted, trained, tmp_path
):
    """Case 66: frames of equal names in two data sets were compared, in one table."""
    content = checkpoint.load(trained)
    content["preset"]["data"]["evaluation"] |= {"dataset": "playground-game", "split": "train"}
    other = tmp_path / "other.pth"
    checkpoint.save(other, content)
    done = fgda("evaluate", trained, other, "--data-root", data_root)
    assert (
        done.returncode == 2
        and "playground-game / train" in done.stderr
        and "--data" in done.stderr
    )
    done = fgda("evaluate", other, "--data-root", data_root, "--json")
    assert done.returncode == 0, done.stderr
    # case 68: the preset's split
    assert json.loads(done.stdout)["split"] == "train"
