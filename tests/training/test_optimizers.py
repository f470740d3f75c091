"""Optimisers as presets ask for them: who decays, who learns how fast, how warm-up and clipping
act.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fgda_cli.methods.optimizers import Recipe, norms, poly, refine
from fgda_cli.models import checkpoint
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.runtime.errors import UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.settings import Optim, Stage
from fgda_cli.training import stages

VIT = "timm:test_vit"

STAGE = Stage(iterations=1)


def test_warm_up_times_the_decay_as_mmsegmentation():
    """[DAFormer]: iteration 750 of 1500, of 40,000, power 1: .490625."""
    schedule = poly(1.0, 1500, times_decay=True)
    assert schedule(750, 40000) == pytest.approx(0.490625, abs=1e-6)
    assert schedule(0, 40000) == pytest.approx(1e-6) and schedule(1500, 40000) == pytest.approx(
        0.9625
    )
    assert poly(1.0, 1500)(750, 40000) == 0.5


def test_nothing_is_split_where_nothing_is_asked_for():
    model = Segmenter(3, "resnet18", width=8)
    groups = model.parameter_groups(1.0, 10.0)
    assert refine(groups, model, Optim()) is groups


def test_norms_are_freed_of_decay():
    model = Segmenter(3, "resnet18", width=8, head="fused", head_width=16, dilations=(2,)).train()
    recipe = Recipe(Optim(weight_decay=0.1, kind="adamw", decay_norms=False), STAGE)
    optimizer = recipe.make(model.parameter_groups(1.0, 10.0), model)
    assert isinstance(optimizer, torch.optim.AdamW)
    free = {
        id(p)
        for group in optimizer.param_groups
        if group["weight_decay"] == 0
        for p in group["params"]
    }
    others = {
        id(p)
        for group in optimizer.param_groups
        if group["weight_decay"] == 0.1
        for p in group["params"]
    }
    assert (
        free == {id(p) for layer in norms(model) for p in layer.parameters()}
        and free
        and others
        and not free & others
    )
    assert len(free) + len(others) == len(list(model.parameters()))
    assert {group["lr"] for group in optimizer.param_groups} == {1.0, 10.0}


def test_blocks_of_a_transformer_learn_the_slower_the_deeper_they_lie():
    model = Segmenter(3, VIT, output_stride="native", multi_level=False)
    depths = model.backbone.layer_depths()
    last = max(depths.values()) + 1
    recipe = Recipe(Optim(weight_decay=0.1, kind="adamw", layer_decay=0.5), STAGE)
    rates = {
        id(p): group["lr"]
        for group in recipe.make(model.parameter_groups(1.0, 10.0), model).param_groups
        for p in group["params"]
    }
    named = dict(model.backbone.named_parameters())
    embedding = next(p for name, p in named.items() if "patch_embed" in name)
    assert rates[id(embedding)] == pytest.approx(0.5**last)
    blocks = sorted({depths[name] for name in named if ".blocks." in name})
    assert blocks == list(range(1, last))
    for name, parameter in named.items():
        assert rates[id(parameter)] == pytest.approx(0.5 ** (last - depths.get(name, last - 1))), (
            name
        )
    assert all(rates[id(p)] == 10.0 for p in model.head.parameters())


def test_an_encoder_without_blocks_has_no_layer_decay():
    model = Segmenter(3, "resnet18", width=8)
    with pytest.raises(UsageError, match="no transformer blocks"):
        Recipe(Optim(layer_decay=0.9), STAGE).make(model.parameter_groups(1.0, 10.0), model)


def test_a_run_with_all_of_it_trains_and_its_first_step_is_no_longer_than_allowed(
    data_root, tiny_preset, tmp_path
):
    def run(name, *sets):
        preset = tiny_preset(
            "pretrain.iterations=1",
            "optim.kind=sgd",
            "optim.lr=1",
            "optim.head_lr_factor=1",
            "optim.weight_decay=0",
            *sets,
        )
        job = stages.Job(
            preset, data_root, tmp_path / name, device="cpu", reporter=Reporter(quiet=True)
        )
        return checkpoint.load(stages.pretrain(job))["model"]

    torch.manual_seed(0)
    free = run("free")
    held = run("held", "optim.clip_norm=0.01")
    start = run("start", "optim.lr=1e-12")

    def step(state):
        learnt = [
            k
            for k in state
            if not k.startswith("normalise.") and "running" not in k and "num_" not in k
        ]
        return sum((state[k] - start[k]).double().square().sum() for k in learnt).sqrt()

    assert step(held).item() == pytest.approx(0.01, rel=1e-3) and step(free) > 0.02
    adamw = tiny_preset(
        "optim.kind=adamw",
        "optim.lr=1e-3",
        "optim.decay_norms=false",
        "optim.clip_norm=1",
        "optim.warmup=times_decay",
        "pretrain.warmup_iterations=2",
    )
    job = stages.Job(
        adamw, data_root, tmp_path / "adamw", device="cpu", reporter=Reporter(quiet=True)
    )
    first = checkpoint.load(stages.pretrain(job))["model"]
    second = checkpoint.load(stages.pretrain(replace(job, out=tmp_path / "again")))["model"]
    assert all(torch.equal(first[key], second[key]) for key in first)


def frozen(tiny_preset, *sets, method="fgda"):
    return tiny_preset(
        "adapt.batch_norm=frozen", "adapt.iterations=3", "adapt.batch_size=4", *sets, method=method
    )


@pytest.mark.parametrize("method", ["fgda", "fgda-st", "mic", "dacs"])
def test_a_step_in_parts_is_the_whole_step(data_root, tiny_preset, tmp_path, method):
    """Each image draws as it would in one part; what is left is that a part's mean is over its own
    labelled pixels.
    """
    sets = ("data.source.crop=[32,32]", "optim.lr=1e-3") if method == "fgda" else ("optim.lr=1e-3",)
    job = stages.Job(
        frozen(tiny_preset, *sets, method=method),
        data_root,
        tmp_path / "pre",
        device="cpu",
        reporter=Reporter(quiet=True),
    )
    start = stages.pretrain(job)
    parts = replace(job, preset=frozen(tiny_preset, *sets, "adapt.accumulate=2", method=method))
    one, two = (
        checkpoint.load(stages.adapt(replace(each, out=tmp_path / name), start))["model"]
        for name, each in (("one", job), ("two", parts))
    )
    before = checkpoint.load(start)["model"]
    moved = sum(
        (one[k] - before[k]).double().square().sum() for k in one if one[k].is_floating_point()
    ).sqrt()
    apart = sum(
        (one[k] - two[k]).double().square().sum() for k in one if one[k].is_floating_point()
    ).sqrt()
    assert moved > 0 and apart < 0.1 * moved, (apart, moved)


def test_a_batch_that_cannot_be_split_is_said(data_root, tiny_preset, tmp_path):
    job = stages.Job(
        tiny_preset("pretrain.accumulate=3"),
        data_root,
        tmp_path / "x",
        device="cpu",
        reporter=Reporter(quiet=True),
    )
    with pytest.raises(UsageError, match="a multiple of their number, 1, times accumulate, 3"):
        stages.pretrain(job)
