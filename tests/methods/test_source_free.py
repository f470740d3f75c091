"""Adaptation without a source: nothing of it is opened, norm layers alone learn (TENT), and the
guard that keeps the start.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from fgda_cli import losses
from fgda_cli.methods import tent
from fgda_cli.methods.registry import method_class
from fgda_cli.methods.sfst import _class_quantiles
from fgda_cli.models import checkpoint
from fgda_cli.models.normalisation import batch_norms
from fgda_cli.runtime.errors import UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import components, datasets, stages, validation
from tests.helpers import batch, make, same

FREE = ["adabn", "tent", "sfst"]


@pytest.fixture
def job(data_root, tiny_preset, tmp_path):
    """A data root that holds the target alone."""
    torch.set_num_threads(1)
    shutil.copytree(data_root / "playground-street", tmp_path / "data/playground-street")
    reporter = Reporter(quiet=True, decisions=[])
    return stages.Job(
        tiny_preset(method="tent"),
        tmp_path / "data",
        tmp_path / "run",
        device="cpu",
        reporter=reporter,
    )


@pytest.mark.parametrize("method", FREE)
def test_no_source_is_needed(job, trained, tiny_preset, method):
    final = stages.adapt(
        replace(job, preset=tiny_preset("adapt.evaluate_every=2", method=method)), trained
    )
    content = checkpoint.load(final)
    assert content["classes"] == checkpoint.load(trained)["classes"] and content["method"] == method
    lines = [json.loads(line) for line in (job.out / "metrics.jsonl").read_text().splitlines()]
    assert all("seg" not in line for line in lines)


@pytest.mark.parametrize("method", ["tent", "sfst"])
def test_a_start_is_needed(job, tiny_preset, method):
    with pytest.raises(
        UsageError, match=f"method {method} uses no source: it needs a trained model"
    ):
        stages.adapt(replace(job, preset=tiny_preset("adapt.start=backbone", method=method)), None)


def test_methods_with_a_source_still_ask_for_it(job, trained, tiny_preset):
    from fgda_cli.runtime.errors import FgdaError

    with pytest.raises(FgdaError, match="playground-game' is not prepared"):
        stages.adapt(replace(job, preset=tiny_preset(method="fgda")), trained)


def test_tent_moves_scales_shifts_and_statistics_alone(job, trained, tiny_preset):
    stages.adapt(replace(job, preset=tiny_preset("method.norm_lr=0.01", method="tent")), trained)
    before = checkpoint.load(trained)["model"]
    after = checkpoint.load(job.out / "checkpoints/last.pth")["model"]
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    norms = {key.rpartition(".")[0] for key in before if key.endswith("running_mean")}
    assert moved and all(key.rpartition(".")[0] in norms for key in moved)
    assert any(key.endswith("bn1.weight") for key in moved) and any(
        key.endswith("running_var") for key in moved
    )
    # the statistics are those of all target images, and training leaves them
    model, _ = checkpoint.load_model(trained)
    preset = tiny_preset(method="tent")
    data = datasets.open_datasets(
        preset,
        job.data_root,
        method_class("tent"),
        reporter=job.reporter,
        start=checkpoint.load(trained),
    )
    samples = components.make_samples(preset, preset.adapt, data, method=method_class("tent"))
    assert model.mix_statistics(samples.target_batches(), 1.0)
    for key, value in model.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(after[key], value, msg=key)


def test_tents_loss_is_the_mean_entropy():
    method = make("tent", False)
    data = batch()
    term = method.step(data)["entropy"]
    expected = losses.entropy_map(
        losses.upsample(method.model(data.target).logits, data.target.shape[-2:])
    ).mean()
    assert term.item() == pytest.approx(expected.item())


def test_tent_says_when_there_is_nothing_to_train(monkeypatch):
    method = make("tent", False)
    monkeypatch.setattr(type(method.model), "modules", lambda self: iter(()))
    with pytest.raises(UsageError, match="this network has none"):
        method.check(method.settings, method.model, None, target=None)


@pytest.mark.parametrize("mode", ["target", "train", "statistics"])
def test_tents_norms_stay_in_evaluation_mode_whatever_the_stage_says(
    job, trained, tiny_preset, monkeypatch, mode
):
    """Under batch_norm: target they stayed in training mode, and moved the statistics at every
    step.
    """
    seen = []
    step = tent.Tent.step

    def watched(self, batch):
        layers = batch_norms(self.model)
        before = [layer.running_mean.clone() for layer in layers]
        found = step(self, batch)
        moved = any(
            not torch.equal(a, layer.running_mean) for a, layer in zip(before, layers, strict=True)
        )
        seen.append((moved, any(layer.training for layer in layers)))
        return found

    monkeypatch.setattr(tent.Tent, "step", watched)
    stages.adapt(
        replace(
            job, preset=tiny_preset(f"adapt.batch_norm={mode}", "adapt.iterations=2", method="tent")
        ),
        trained,
    )
    assert seen == [(False, False)] * 2


def test_the_most_confident_half_of_each_class_of_each_image_counts():
    method = make("sfst", False, torch.float32, portion=0.5)
    probs = torch.tensor([[[0.9, 0.8, 0.7, 0.6]], [[0.5, 0.6, 0.99, 0.98]]])
    guess = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 0]]])
    assert method.most_confident(probs, guess).tolist() == [[[1, 0, 1, 0]], [[0, 0, 1, 1]]]


@pytest.mark.parametrize("portion", [0.1, 0.5, 0.9, 1.0])
def test_the_limits_of_all_classes_at_once_are_those_of_each(portion):
    generator = torch.Generator().manual_seed(1)
    probs = torch.rand(2, 500, generator=generator).clamp(min=0.2)
    classes = torch.randint(0, 6, (2, 500), generator=generator)
    # a class without pixels
    classes[classes == 3] = 5
    found = _class_quantiles(probs, classes, 7, share=1 - portion)
    for image, labels, limits in zip(probs, classes, found, strict=True):
        for k in labels.unique().tolist():
            mine = image[labels == k]
            assert (
                limits[k]
                == mine.kthvalue(min(len(mine), int((1 - portion) * len(mine)) + 1)).values
            )


def test_uniformity_is_zero_for_varied_and_one_for_a_single_class():
    method = make("sfst", False, torch.float64)
    varied = torch.zeros(2, 5, 4, 4, dtype=torch.float64)
    assert method.uniformity(varied).item() == pytest.approx(0, abs=1e-6)
    single = varied.clone()
    single[:, 2] = 60
    assert method.uniformity(single).item() == pytest.approx(1, abs=1e-6)
    logits = torch.randn(
        2,
        5,
        3,
        3,
        dtype=torch.float64,
        requires_grad=True,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.autograd.gradcheck(lambda x: method.uniformity(x).double(), logits, atol=1e-4)


@pytest.mark.parametrize("method", ["tent", "sfst"])
@pytest.mark.parametrize("scores, best", [([-1.0, -2.0, -0.5], 0), ([1.0, 3.0, 2.0], 4)])
def test_the_guard_keeps_the_start_unless_something_is_better(
    job, trained, tiny_preset, monkeypatch, method, scores, best
):
    waiting = iter(scores)

    def score(self, state, iteration):
        self.after = self.look(state)
        # tent's statistics change before the first step
        return next(waiting, -5.0) if iteration else 0.0

    monkeypatch.setattr(validation.LabelFree, "score", score)
    final = stages.adapt(
        replace(job, preset=tiny_preset("adapt.evaluate_every=2", method=method)), trained
    )
    content = checkpoint.load(final)
    assert content["iteration"] == best
    kept = any("final.pth is the start" in said for said in job.reporter.decisions)
    assert kept == (best == 0)
    if method == "sfst" and best == 0:
        assert same(final, trained)


def test_labels_pick_where_they_are_asked_to(job, trained, tiny_preset):
    final = stages.adapt(
        replace(job, preset=tiny_preset("run.select=labels", method="tent")), trained
    )
    assert any("best.pth is picked by the labels" in said for said in job.reporter.decisions)
    assert checkpoint.load(final)["iteration"] == 6
