"""What a run begins from and goes on to: networks, classes and weights compared; nothing stale,
nothing silently else.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from fgda_cli.data.images import write_image
from fgda_cli.data.layouts.base import OwnFiles
from fgda_cli.data.prepare import How, prepare_own
from fgda_cli.models import checkpoint
from fgda_cli.models.checkpoint import build_model
from fgda_cli.runtime.errors import FgdaError, UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import stages
from tests.helpers import QUIET, Listening


@pytest.fixture
def job(data_root, tiny_preset, tmp_path):
    torch.set_num_threads(1)
    return stages.Job(
        tiny_preset(),
        data_root,
        tmp_path / "run",
        device="cpu",
        reporter=Reporter(quiet=True, decisions=[]),
    )


@pytest.mark.parametrize(
    "key, value",
    [
        ("variant", "caffe"),
        ("output_stride", "16"),
        ("dilations", "[1, 2, 3, 4]"),
        ("batch_norm_eps", "0.001"),
    ],
)
def test_a_start_of_another_function_is_refused_by_key_or_taken_over(
    job, tiny_preset, trained, key, value
):
    """Case 9: tensors of the same shapes, another network."""
    other = replace(job, preset=tiny_preset(f"model.{key}={value}"))
    with pytest.raises(
        UsageError,
        match=(
            rf"another network than the preset's: model\.{key} \(preset .*, checkpoint"
            r" .*\)\n.*--init"
        ),
    ):
        stages.adapt(other, trained)
    assert not (job.out / "preset.yaml").exists()
    final = stages.adapt(replace(other, init_model=True), trained)
    assert any(f"model taken over from {trained}: {key}" in said for said in job.reporter.decisions)
    ours, theirs = (checkpoint.load(path)["preset"]["model"] for path in (final, trained))
    assert ours[key] == theirs[key]


def test_a_start_that_is_named_comes_before_adapt_start(job, tiny_preset, trained):
    other = replace(job, preset=tiny_preset("adapt.start=backbone", method="minent"))
    final = checkpoint.load(stages.adapt(other, trained))
    assert f"starting from {trained}: adapt.start: backbone is not followed" in (
        job.reporter.decisions
    )
    assert final["preset"]["adapt"]["start"] == "pretrain" and final["verdict"] is not None


def test_a_finished_run_goes_on_with_extend_and_says_what_the_rates_do(job, tiny_preset):
    """Case 18."""
    stages.pretrain(job)
    longer = replace(job, preset=tiny_preset("pretrain.iterations=8"))
    with pytest.raises(
        UsageError, match=r"pretrain\.iterations\n.*or --extend to train it further"
    ):
        stages.pretrain(longer)
    final = stages.pretrain(replace(longer, extend=True))
    assert checkpoint.load(final)["iteration"] == 8
    assert any(
        "goes on from iteration 6 to 8; the rates follow the longer schedule" in said
        for said in job.reporter.decisions
    )
    lines = [json.loads(line) for line in (job.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "seg" in line] == list(range(1, 9))
    other = replace(job, preset=tiny_preset("pretrain.iterations=9", "optim.lr=0.1"), extend=True)
    with pytest.raises(UsageError, match=r"optim\.lr"):
        stages.pretrain(other)


def test_an_adaptation_notices_that_its_start_was_trained_again(job, tiny_preset, tmp_path):
    """Case 19."""
    start = stages.pretrain(replace(job, out=tmp_path / "pre"))
    stages.adapt(job, start)
    # the same start: finished already
    assert stages.adapt(job, start) == job.out / "checkpoints/final.pth"
    other = replace(
        job, preset=tiny_preset("pretrain.iterations=4"), out=tmp_path / "pre", fresh=True
    )
    stages.pretrain(other)
    with pytest.raises(
        UsageError, match=r"began from other weights than .*final\.pth holds now.*\n.*--fresh"
    ):
        stages.adapt(job, start)
    stages.adapt(replace(job, fresh=True), start)


def test_the_same_start_under_another_path_is_the_same_run(job, trained, tmp_path, monkeypatch):
    """Case 20."""
    monkeypatch.chdir(trained.parent)
    first = stages.adapt(job, trained)
    from pathlib import Path

    assert stages.adapt(job, Path("final.pth")) == first
    copy = tmp_path / "elsewhere.pth"
    copy.write_bytes(trained.read_bytes())
    assert stages.adapt(job, copy) == first


def two_classes(root, names, split, counts=4):
    """A folder data set of two classes, prepared with its classes in the order given."""
    for number in range(counts):
        ids = np.zeros((32, 64), np.uint8)
        # raw: 0 above is sky, 1 below is road
        ids[16:] = 1
        write_image(
            root / f"i/{number}.png", np.repeat((ids * 90 + 60 + np.uint8(number))[..., None], 3, 2)
        )
        write_image(root / f"l/{number}.png", ids)
    (root / "m.yaml").write_text(f"classes: [{', '.join(names)}]\n0: sky\n1: road\n")
    name = "-".join(names)
    numbers = sorted(path.name for path in (root / "i").iterdir())
    for part, only in (("train", numbers[::2]), (split, numbers[1::2])):
        files = OwnFiles(
            root / "i", root / "l", mapping=root / "m.yaml", split=part, only=tuple(only)
        )
        prepare_own("folder", files, name, how=How(root, (64, 32), 1, reporter=QUIET))
    return name


def test_own_classes_on_a_preset_of_others_are_one_line(job, tiny_preset, tmp_path):
    """Case 14."""
    name = two_classes(tmp_path, ["sky", "road"], "val")
    sets = [
        f"data.source.dataset={name}",
        f"data.target.dataset={name}",
        f"data.evaluation.dataset={name}",
    ]
    mine = replace(job, data_root=tmp_path)
    wrong = replace(mine, preset=tiny_preset(*sets, "data.untrained=[9, 14, 16]"))
    with pytest.raises(
        UsageError, match=r"data\.untrained: 9 is not one of the 2 classes: sky, road\n"
    ):
        stages.pretrain(wrong)
    named = replace(mine, preset=tiny_preset(*sets, "data.untrained=[truck]"))
    with pytest.raises(UsageError, match=r"data\.untrained: truck is not one of the 2 classes"):
        stages.pretrain(named)
    with pytest.raises(UsageError, match="every class is left out"):
        stages.pretrain(replace(mine, preset=tiny_preset(*sets, "data.untrained=[sky, road]")))
    right = replace(
        mine, preset=tiny_preset(*sets, "data.untrained=[]", "data.evaluation.metric=miou16")
    )
    final = stages.pretrain(right)
    assert any(
        "miou16 needs Cityscapes' classes, so miou picks best.pth" in said
        for said in job.reporter.decisions
    )
    assert (final.parent / "best.pth").is_file() and checkpoint.load(final)["metrics"]["miou"] > 0


def test_a_start_whose_classes_stand_in_another_order_is_reordered(job, tiny_preset, tmp_path):
    """Case 8: mIoU does not fall to 0, in validation, evaluation and adaptation."""
    from fgda_cli.data.store import PreparedDataset
    from fgda_cli.inference.evaluate import evaluate_file
    from fgda_cli.runtime.devices import Precision

    first = two_classes(tmp_path, ["sky", "road"], "val")
    second = two_classes(tmp_path, ["road", "sky"], "val")

    def preset(source, evaluation, *more):
        sets = [
            f"data.source.dataset={source}",
            f"data.target.dataset={second}",
            f"data.evaluation.dataset={evaluation}",
        ]
        return tiny_preset(
            *sets, "data.untrained=[]", "pretrain.iterations=40", "adapt.iterations=2", *more
        )

    start = stages.pretrain(
        replace(job, preset=preset(first, second), data_root=tmp_path, out=tmp_path / "pre")
    )
    cpu = Precision("fp32", torch.device("cpu"))
    scores = [
        evaluate_file(
            start, PreparedDataset(tmp_path / name), "val", precision=cpu, reporter=QUIET
        ).miou
        for name in (first, second)
    ]
    assert scores[0] == scores[1] > 80
    assert checkpoint.load(start)["metrics"]["miou"] == scores[0]
    adapted = stages.adapt(
        replace(job, preset=preset(second, first, "optim.lr=1e-6"), data_root=tmp_path), start
    )
    assert (
        evaluate_file(
            adapted, PreparedDataset(tmp_path / second), "val", precision=cpu, reporter=QUIET
        ).miou
        > 80
    )
    cityscapes = replace(job, out=tmp_path / "c")
    with pytest.raises(UsageError, match="different classes from the source"):
        stages.adapt(cityscapes, start)
    # refused before anything is written
    assert not cityscapes.out.exists()


def test_weights_that_are_not_finite_are_no_start(job, trained, tmp_path):
    content = checkpoint.load(trained)
    name = next(key for key, value in content["model"].items() if value.ndim == 4)
    content["model"][name][0, 0, 0, 0] = float("nan")
    torch.save(content, tmp_path / "broken.pth")
    for action in (
        lambda: stages.adapt(job, tmp_path / "broken.pth"),
        lambda: checkpoint.load_model(tmp_path / "broken.pth"),
    ):
        with pytest.raises(FgdaError, match=rf"1 tensors hold NaN or infinity, e\.g\. {name}"):
            action()


@pytest.mark.parametrize("what", ["gradients", "weights"])
def test_a_run_that_turns_non_finite_stops_at_the_last_good_checkpoint(
    job, tmp_path, monkeypatch, what
):
    """Case 13: finite losses alone prove nothing."""
    from fgda_cli.methods.base import Method

    original = Method.source_pass
    calls = []

    def breaks(self, batch):
        output, terms = original(self, batch)
        calls.append(1)
        if len(calls) == 4:
            parameter = self.model.head.convs[0].bias
            if what == "gradients":
                parameter.grad[0] = float("inf")
            else:
                # no gradient, no loss shows it in this iteration
                self.model.backbone.bn1.running_mean[0] = float("nan")
        return output, terms

    monkeypatch.setattr(Method, "source_pass", breaks)
    words = (
        r"gradients are not finite at iteration 4"
        if what == "gradients"
        else r"hold NaN or infinity"
    )
    with pytest.raises(
        FgdaError,
        match=rf"{words}.*the last good checkpoint is .*last\.pth\nstart over with --fresh --set",
    ):
        stages.pretrain(job)
    last = checkpoint.load(job.out / "checkpoints/last.pth")
    assert last["train"]["iteration"] == 2
    assert all(
        torch.isfinite(value).all() for value in last["model"].values() if value.is_floating_point()
    )
    monkeypatch.setattr(Method, "source_pass", original)
    # and the same command goes on from it
    assert stages.pretrain(job).is_file()


def test_a_run_that_ended_for_patience_goes_on(data_root, tiny_preset, tmp_path):
    """ "finished already", and --extend named an iteration that it never reached."""
    reporter = Listening()
    patient = tiny_preset(
        "run.patience=1", "pretrain.evaluate_every=1", "pretrain.iterations=6", "optim.lr=1e-9"
    )
    job = stages.Job(patient, data_root, tmp_path / "run", device="cpu", reporter=reporter)
    stages.pretrain(job)
    ended = checkpoint.load(tmp_path / "run/checkpoints/last.pth")["iteration"]
    assert ended < 6
    stages.pretrain(job)
    assert any(
        f"ended at iteration {ended} of 6, for time or patience: a larger --budget" in text
        for text in reporter.said
    )
    again = tiny_preset(
        "run.patience=99", "pretrain.evaluate_every=1", "pretrain.iterations=6", "optim.lr=1e-9"
    )
    stages.pretrain(
        replace(job, preset=again, fresh=True, out=shutil.copytree(job.out, tmp_path / "fresh"))
    )
    assert not any("goes on from iteration" in text for text in reporter.said)
    # more patience says enough
    stages.pretrain(replace(job, preset=again))
    assert any(
        f"goes on from iteration {ended} to 6; the learning rates go on as planned" in text
        for text in reporter.said
    )
    assert checkpoint.load(tmp_path / "run/checkpoints/last.pth")["iteration"] == 6


@pytest.mark.parametrize("head", ["daformer", "segformer", "pyramid"])
def test_new_heads_norms_are_trained_where_the_encoders_are_frozen(
    head, data_root, tiny_preset, tmp_path
):
    """As they are initialised, they normalise nothing."""
    encoder = tmp_path / "encoder.pth"
    torch.manual_seed(0)
    torch.save(build_model(tiny_preset().model, 19).backbone.state_dict(), encoder)
    reporter = Reporter(quiet=True, decisions=[])
    preset = tiny_preset(
        f"model.head={head}",
        "model.head_width=8",
        f"model.weights={encoder}",
        "model.align_corners=false",
        "pretrain.batch_norm=frozen",
        "pretrain.iterations=2",
    )
    final = stages.pretrain(
        stages.Job(preset, data_root, tmp_path / "run", device="cpu", reporter=reporter)
    )
    state = checkpoint.load(final)["model"]
    start = torch.load(encoder, weights_only=True)
    means = {key: value for key, value in state.items() if key.endswith("running_mean")}
    assert all(
        torch.equal(value, start[key.removeprefix("backbone.")])
        for key, value in means.items()
        if "backbone" in key
    )
    assert all(bool(value.any()) for key, value in means.items() if "backbone" not in key)
    assert any("the new head's norms are trained" in decision for decision in reporter.decisions)


def test_an_encoder_without_weights_that_is_frozen_is_warned_of(
    data_root, tiny_preset, tmp_path, capsys
):
    preset = tiny_preset("pretrain.batch_norm=frozen", "pretrain.iterations=1")
    stages.pretrain(stages.Job(preset, data_root, tmp_path / "run", device="cpu", reporter=QUIET))
    log = (tmp_path / "run/log.txt").read_text()
    said = "so they normalise nothing: set pretrain.batch_norm=train"
    assert (
        said in capsys.readouterr().err
        and said in log
        and f"seed {preset.run.seed}: all settings in preset.yaml" in log
    )


@pytest.mark.parametrize("sampling", ["class_balanced", "rare_class", "uniform"])
def test_labels_that_are_all_void_are_refused_before_work(
    raw_playground, tiny_preset, tmp_path, sampling
):
    """Case 47."""
    shutil.copytree(raw_playground / "game/images", tmp_path / "i")
    for path in (tmp_path / "i").rglob("*.png"):
        height, width = cv2.imread(str(path)).shape[:2]
        write_image(
            tmp_path / "l" / path.relative_to(tmp_path / "i"), np.zeros((height, width), np.uint8)
        )
    (tmp_path / "m.yaml").write_text("0: ignore\n1: road\n")
    files = OwnFiles(images=tmp_path / "i", labels=tmp_path / "l", mapping=tmp_path / "m.yaml")
    prepare_own(
        "folder",
        files,
        "void",
        how=How(tmp_path / "data", (64, 32), 1, reporter=QUIET),
    )
    preset = tiny_preset("data.source.dataset=void", f"data.sampling={sampling}")
    with pytest.raises(FgdaError, match="void has no labelled pixel of a trained class"):
        stages.pretrain(
            stages.Job(
                preset,
                tmp_path / "data",
                tmp_path / "run",
                device="cpu",
                reporter=QUIET,
            )
        )
    assert not (tmp_path / "run").exists()
