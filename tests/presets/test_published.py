"""Presets of published methods carry the settings of their authors' code; stages do with them what
that code does.
"""

from __future__ import annotations

import pytest
import torch

from fgda_cli.methods.optimizers import constant_then_linear, poly
from fgda_cli.methods.registry import method_class
from fgda_cli.models import weights
from fgda_cli.models.encoders import resnet
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.presets import load_preset
from fgda_cli.training.components import make_optimizers


def test_fada():
    """Parity 7, 19, 20."""
    p = load_preset("gta2city-fada")
    assert (p.model.variant, p.model.multi_level, p.method.name) == ("torchvision", False, "fada")
    assert (p.pretrain.lr, p.pretrain.iterations, p.pretrain.schedule_iterations) == (
        5e-4,
        20000,
        31250,
    )
    assert (p.adapt.lr or p.optim.lr, p.adapt.iterations, p.adapt.schedule_iterations) == (
        2.5e-4,
        40000,
        62500,
    )
    assert (p.pretrain.batch_size, p.adapt.batch_size, p.data.flip) == (8, 4, False)
    assert (
        p.data.colour_jitter == (0.5, 0.5, 0.5, 0.2)
        and not p.pretrain.colour_jitter
        and p.adapt.colour_jitter
    )
    assert p.data.evaluation.protocol == "paper" and p.adapt.batch_norm == "frozen"


@pytest.mark.parametrize(
    "name, total", [("adaptsegnet", 150000), ("advent", 120000), ("clan", 100000)]
)
def test_the_binary_ones(name, total):
    """Parity 2, 6, 9, 16: thrice the layers' rate, statistics that run with their affine fixed, one
    stage from ImageNet.
    """
    p = load_preset(f"gta2city-{name}")
    assert p.method.name == name and p.model.variant == "caffe" and p.optim.lr == 7.5e-4
    assert p.optim.lr * p.optim.head_lr_factor == pytest.approx(2.5e-3, rel=1e-3)
    assert (p.adapt.batch_norm, p.adapt.start, p.adapt.iterations) == (
        "statistics",
        "backbone",
        total,
    )
    assert p.model.dilations == ((6, 12) if name == "adaptsegnet" else (6, 12, 18, 24))
    assert p.model.multi_level == (name != "clan") and p.adapt.batch_size == 1
    assert p.adapt.schedule_iterations == (None if name == "clan" else 250000)


def test_clan():
    p = load_preset("gta2city-clan")
    m = p.method
    assert (
        m.lambda_local,
        m.epsilon,
        m.lambda_weight,
        m.focal_gamma,
        m.warmup_share,
        m.damping,
    ) == (
        40,
        0.4,
        0.01,
        2.0,
        0.05,
        True,
    )
    assert p.adapt.warmup_iterations == 5000 and p.data.flip


def test_the_papers_own_presets_stay():
    p = load_preset("gta2city")
    assert (
        p.optim.lr,
        p.pretrain.iterations,
        p.adapt.batch_size,
        p.pretrain.schedule_iterations,
    ) == (2.5e-4, 20000, 1, None)


def test_weights_are_those_of_the_published_runs_by_default(monkeypatch, tmp_path):
    """Parity 18."""
    assert load_preset("gta2city").model.weights == "imagenet"
    assert resnet.WEIGHTS["resnet101", "torchvision", "imagenet"].endswith("resnet101-63fe2227.pth")
    assert resnet.WEIGHTS["resnet101", "torchvision", "imagenet-v2"].endswith(
        "resnet101-cd907fc2.pth"
    )
    monkeypatch.setenv("FGDA_WEIGHTS", str(tmp_path))
    for recipe, file in (
        ("imagenet", "resnet101-63fe2227.pth"),
        ("imagenet-v2", "resnet101-cd907fc2.pth"),
    ):
        (tmp_path / file).write_bytes(b"x")
        assert weights.find_weights("resnet101", "torchvision", recipe) == tmp_path / file


def test_rates_of_a_stage():
    """Parity 6 and 19: a stage's own rate; 0 to the rate in the warm-up; not 0 where a schedule is
    left early.
    """
    p = load_preset(
        "gta2city-fada",
        ["model.backbone=resnet18", "model.width=8", "method.discriminator_widths=[8, 8]"],
    )
    model = Segmenter(19, "resnet18", width=8, multi_level=False)
    cls = method_class("fada")
    optimizers = make_optimizers(cls(model, p.method), p, p.pretrain)
    assert [g["lr"] for g in optimizers["segmentation"].optimizer.param_groups] == pytest.approx(
        [5e-4, 5e-3]
    )
    schedule = optimizers["segmentation"].schedule
    assert 5e-4 * schedule(19999, 31250) == pytest.approx(2e-4, rel=0.03)
    warm = poly(0.9, 5000)
    assert (
        warm(0, 100000) == 0
        and warm(2500, 100000) == 0.5
        and warm(5000, 100000) == pytest.approx(0.95**0.9)
    )
    linear = constant_then_linear(0.5)
    assert (linear(0, 100), linear(49, 100), linear(75, 100), linear(100, 100)) == (
        1.0,
        1.0,
        0.5,
        0.0,
    )


@pytest.mark.parametrize(
    "mode, statistics, affine",
    [
        ("frozen", False, False),
        ("statistics", True, False),
        ("train", True, True),
        ("target", True, True),
    ],
)
def test_batch_norm_modes(mode, statistics, affine):
    """Parity 16."""
    torch.manual_seed(0)
    net = Segmenter(3, "resnet18", width=8).train()
    net.set_batch_norm(mode)
    before = net.backbone.bn1.running_mean.clone()
    net(torch.rand(2, 3, 64, 64) * 255).logits.sum().backward()
    assert torch.equal(net.backbone.bn1.running_mean, before) != statistics
    assert (net.backbone.bn1.weight.grad is not None) == affine
    trained = {id(p) for group in net.parameter_groups(1.0, 10.0) for p in group["params"]}
    assert (id(net.backbone.bn1.weight) in trained) == affine


def test_the_stage_that_starts_from_the_backbone_needs_no_pretrain(
    data_root, tiny_preset, tmp_path
):
    from fgda_cli.runtime.reporter import Reporter
    from fgda_cli.training import stages

    preset = tiny_preset("adapt.start=backbone", "adapt.warmup_iterations=2", method="advent")
    final = stages.adapt(
        stages.Job(
            preset, data_root, tmp_path / "run", device="cpu", reporter=Reporter(quiet=True)
        ),
        None,
    )
    assert final.is_file()
    import json

    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"]["segmentation"] for line in lines if "seg" in line]
    assert rates[0] == 0 and rates[1] == pytest.approx(preset.optim.lr / 2) and rates[-1] > 0


def test_jitter_is_a_key_of_each_stage(data_root, tiny_preset):
    """Parity 20."""
    from fgda_cli.runtime.reporter import Reporter
    from fgda_cli.training.components import make_samples
    from fgda_cli.training.datasets import open_datasets

    preset = tiny_preset(
        "data.colour_jitter=[0.5, 0.5, 0.5, 0.2]", "data.blur=1", "pretrain.colour_jitter=false"
    )
    method = method_class("fgda")
    data = open_datasets(preset, data_root, method, reporter=Reporter(quiet=True))
    off, on = (
        make_samples(preset, stage, data, method=method)
        for stage in (preset.pretrain, preset.adapt)
    )
    assert on.changes_colours and not off.changes_colours
    # The same crop, mirrored alike: only colours differ.
    assert torch.equal(on[0]["labels"], off[0]["labels"])
    assert not torch.equal(on[0]["source"], off[0]["source"])
