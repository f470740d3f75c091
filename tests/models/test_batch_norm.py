"""Statistics of the target blended into batch norm, against moments worked out in numpy."""

from __future__ import annotations

import pytest
import torch

from fgda_cli.methods.registry import method_class
from fgda_cli.models import checkpoint
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.runtime.errors import Stopped, UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import components, stages
from fgda_cli.training.trainer import Trainer
from tests.helpers import QUIET


def network() -> Segmenter:
    torch.manual_seed(0)
    model = Segmenter(5, "resnet18", width=8, output_stride=16, multi_level=False)
    # running statistics that are not 0 and 1
    model.train()(torch.rand(4, 3, 32, 64) * 255)
    return model.eval()


def first_inputs(model: Segmenter, images: torch.Tensor) -> torch.Tensor:
    return model.backbone.conv1(model.normalise(images))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_first_layers_statistics_are_the_blend_of_its_own_and_the_images(share):
    model = network()
    images = torch.rand(6, 3, 32, 64) * 200
    layer = model.backbone.bn1
    own = layer.running_mean.clone(), layer.running_var.clone()
    with torch.no_grad():
        parts = [first_inputs(model, part) for part in (images[:4], images[4:])]
    means = (4 * parts[0].mean((0, 2, 3)) + 2 * parts[1].mean((0, 2, 3))) / 6
    variances = (4 * parts[0].var((0, 2, 3)) + 2 * parts[1].var((0, 2, 3))) / 6
    model.mix_statistics([images[:4], images[4:]], share)
    torch.testing.assert_close(layer.running_mean, (1 - share) * own[0] + share * means)
    torch.testing.assert_close(layer.running_var, (1 - share) * own[1] + share * variances)
    assert not model.training


def test_later_layers_are_measured_behind_blended_ones():
    """With one batch's statistics alone, what enters a late layer in evaluation has just the
    moments that are stored.
    """
    model = network()
    images = torch.rand(4, 3, 64, 64) * 200
    model.mix_statistics([images], 1.0)
    block = model.backbone.layer4[0]
    seen = []
    hook = block.register_forward_pre_hook(
        lambda block, inputs: seen.append(block.conv1(inputs[0]))
    )
    with torch.no_grad():
        model(images)
    hook.remove()
    torch.testing.assert_close(
        block.bn1.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(block.bn1.running_var, seen[0].var((0, 2, 3)), rtol=1e-3, atol=1e-4)


def test_no_image_leaves_the_statistics_alone():
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.mix_statistics([], 0.5)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_mixed_statistics_are_taken_at_the_start_and_then_frozen(
    data_root, tiny_preset, trained, tmp_path, monkeypatch
):
    job = stages.Job(
        tiny_preset("adapt.batch_norm=mixed", "adapt.batch_norm_target_share=0.5"),
        data_root,
        tmp_path / "whole",
        device="cpu",
        reporter=QUIET,
    )
    whole = checkpoint.load(stages.adapt(job, trained))["model"]
    start = checkpoint.load(trained)["model"]
    assert not torch.equal(start["backbone.bn1.running_mean"], whole["backbone.bn1.running_mean"])
    assert torch.equal(start["backbone.bn1.weight"], whole["backbone.bn1.weight"])
    expected = checkpoint.build_model(job.preset.model, 19)
    expected.load_state_dict(start)
    data = stages.open_datasets(job.preset, data_root, method_class("fgda"), reporter=QUIET)
    samples = components.make_samples(
        job.preset, job.preset.adapt, data, method=method_class("fgda")
    )
    expected.mix_statistics(samples.target_batches(), 0.5)
    name = "backbone.bn1.running_mean"
    torch.testing.assert_close(expected.state_dict()[name], whole[name])

    # a stopped run does not blend a second time
    original = Trainer.train_iteration

    def stop(self, batch):
        if self.state.iteration == 3:
            self.save_last()
            raise Stopped(2, "stop")
        return original(self, batch)

    parts = stages.Job(job.preset, data_root, tmp_path / "parts", device="cpu", reporter=QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_iteration", stop)
        with pytest.raises(Stopped):
            stages.adapt(parts, trained)
    again = checkpoint.load(stages.adapt(parts, trained))["model"]
    assert all(torch.equal(again[key], whole[key]) for key in whole)


def test_pretraining_has_no_target_to_blend_in(tiny_preset):
    with pytest.raises(UsageError, match=r"pretrain\.batch_norm: input should be .*given: 'mixed'"):
        tiny_preset("pretrain.batch_norm=mixed")


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_adabn_trains_no_weight_and_takes_one_iteration(
    data_root, tiny_preset, trained, tmp_path, share
):
    preset = tiny_preset(f"method.target_share={share}", method="adabn")
    job = stages.Job(preset, data_root, tmp_path / "run", device="cpu", reporter=QUIET)
    content = checkpoint.load(stages.adapt(job, trained))
    start = checkpoint.load(trained)["model"]
    assert content["iteration"] == 1
    changed = {key for key in start if not torch.equal(start[key], content["model"][key])}
    assert all("running" in key for key in changed) and bool(changed) == bool(share)
    # finished: nothing to do
    stages.adapt(job, trained)


def test_timms_norm_with_its_activation_is_blended_too():
    from timm.layers import BatchNormAct2d

    torch.manual_seed(0)
    model = Segmenter(5, "timm:mobilenetv3_small_050", output_stride=16, multi_level=False).eval()
    layers = [layer for layer in model.modules() if isinstance(layer, BatchNormAct2d)]
    images = torch.rand(2, 3, 64, 64) * 255
    assert layers and model.mix_statistics([images], 1.0)
    with torch.no_grad():
        found = model(images).logits
    assert torch.isfinite(found).all() and all(
        layer.running_mean.abs().sum() > 0 for layer in layers
    )


def test_a_network_without_batch_norm_says_that_nothing_changes(data_root, tiny_preset, tmp_path):
    vit = (
        "model.backbone=timm:test_vit",
        "model.weights=none",
        "model.output_stride=native",
        "model.width=64",
        "model.head=fused",
        "model.multi_level=false",
        "pretrain.batch_norm=frozen",
    )
    said = Reporter(quiet=True, decisions=[])
    start = stages.pretrain(
        stages.Job(
            tiny_preset(*vit, "pretrain.batch_norm=frozen"),
            data_root,
            tmp_path / "pre",
            device="cpu",
            reporter=QUIET,
        )
    )
    stages.adapt(
        stages.Job(
            tiny_preset(*vit, method="adabn"),
            data_root,
            tmp_path / "run",
            device="cpu",
            reporter=said,
        ),
        start,
    )
    assert "adabn changes nothing: this network has no batch norm" in said.decisions
