"""Low-rank updates and frozen encoders: the factors' gradients, what leaves training, runs that
resume, and what cannot be.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fgda_cli.models import checkpoint, tuning
from fgda_cli.presets import load_preset
from fgda_cli.runtime.errors import FgdaError, UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import stages
from fgda_cli.training.memory import LiveMemory
from tests.helpers import TINY, crash_at, fgda, needs, same, set_flags

QUIET = Reporter(quiet=True, warns=False)

NATIVE = ("model.output_stride=native", "model.multi_level=false", "model.width=64")
SMALL = (*NATIVE, "model.weights=none", "model.head_width=16")
NETWORKS = {
    "dinov2": ("model.backbone=dinov2:tiny14", "model.head=transposed"),
    "adapter": ("model.backbone=adapter:tiny14", "model.head=linear"),
    "vit": ("model.backbone=timm:vit_tiny_patch16_224", "model.head=dpt"),
    "mit": ("model.backbone=mit:b0", "model.head=segformer"),
    # reads the weights of its qkv layers without calling them
    "eva": ("model.backbone=timm:eva02_tiny_patch14_224", "model.head=dpt"),
}
IMAGES = torch.randint(
    0, 256, (2, 3, 42, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)
needs_peft = needs("peft")


def built(name: str, *more: str):
    settings = load_preset("playground", [*SMALL, *NETWORKS[name], *more]).model
    torch.manual_seed(0)
    return checkpoint.build_model(settings, 5), settings


def moved(model) -> None:
    """Let what is trained differ from its start."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@needs_peft
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("more", [(), ("model.lora.dora=true",), ("model.lora.init=pissa",)])
def test_a_start_changes_nothing_and_the_merged_network_is_the_unmerged_one(name, more):
    model, settings = built(name, "model.tune=lora", *more)
    before = model.eval()(IMAGES).logits
    names = set(model.state_dict())
    tuning.tune(model, settings)
    start = model.eval()(IMAGES).logits
    if "pissa" in str(more):
        torch.testing.assert_close(start, before, rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(start, before)
    moved(model)
    unmerged = model(IMAGES).logits
    assert (unmerged - before).abs().max() > 1e-3
    plain = tuning.plain_state(model, model.state_dict())
    assert set(plain) == names
    other, _ = built(name)
    other.load_state_dict(plain)
    merged = other.eval()(IMAGES).logits
    assert (merged - unmerged).abs().max() <= 1e-5 * unmerged.abs().max()


@needs_peft
def test_gradients_of_the_factors_are_those_of_w_plus_b_a():
    """By hand, in float64: dL/dB = s G x A^T, dL/dA = s B^T G x for y = x (W + s B A)^T."""
    model, settings = built("dinov2", "model.tune=lora", "model.lora.rank=4", "model.lora.alpha=8")
    tuning.tune(model, settings)
    model.double().eval()
    moved(model)
    layer = model.backbone.blocks[0].attn.proj
    x = torch.randn(3, 7, 64, dtype=torch.float64)
    weights = torch.randn(3, 7, 64, dtype=torch.float64)
    (layer(x) * weights).sum().backward()
    down = layer.lora_A["default"].weight
    up = layer.lora_B["default"].weight
    rows, outer = x.reshape(-1, 64), weights.reshape(-1, 64)
    torch.testing.assert_close(up.grad, 2 * outer.T @ rows @ down.detach().T)
    torch.testing.assert_close(down.grad, 2 * up.detach().T @ outer.T @ rows)
    assert layer.base_layer.weight.grad is None


@needs_peft
def test_factors_of_full_rank_can_follow_a_full_step():
    """From A orthogonal and B = 0, a step of B by -r G A^T is a step of W by -r G."""
    torch.manual_seed(0)
    model, settings = built(
        "dinov2", "model.tune=lora", "model.lora.rank=64", "model.lora.alpha=64"
    )
    tuning.tune(model, settings)
    layer = model.backbone.blocks[0].attn.proj
    layer.double()
    with torch.no_grad():
        q, _ = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64))
        layer.lora_A["default"].weight.copy_(q)
    x = torch.randn(5, 64, dtype=torch.float64)
    goal = torch.randn(5, 64, dtype=torch.float64)
    (layer(x) - goal).square().sum().backward()
    start = layer.base_layer.weight.detach().clone()
    full = start.clone().requires_grad_()
    bias = layer.base_layer.bias.detach()
    (torch.nn.functional.linear(x, full, bias) - goal).square().sum().backward()
    with torch.no_grad():
        up = layer.lora_B["default"].weight
        up -= 0.01 * up.grad
        merged = start + up @ layer.lora_A["default"].weight
    torch.testing.assert_close(merged, start - 0.01 * full.grad)


@needs_peft
def test_a_frozen_perceptron_keeps_less_and_gives_the_same_gradients():
    """Its wide inner values are computed again for the gradient."""
    model, settings = built("dinov2", "model.tune=lora")
    tuning.tune(model, settings)
    moved(model)
    model.train()
    images = IMAGES.repeat(1, 1, 5, 5)
    found = []
    for _ in range(2):
        model.zero_grad()
        with LiveMemory() as live:
            logits = model(images).logits
        kept = live.live
        logits.square().mean().backward()
        grads = [p.grad for n, p in model.named_parameters() if "lora" in n]
        found.append((kept, torch.cat([grad.flatten() for grad in grads])))
        for block in model.backbone.blocks:
            block.mlp.__dict__.pop("forward", None)
    (less, one), (more, other) = found
    assert less < 0.9 * more
    assert torch.equal(one, other)


@needs_peft
def test_layers_that_are_not_called_get_no_factors():
    model, settings = built("eva", "model.tune=lora")
    tuning.tune(model, settings)
    updated = {name.split(".")[-2] for name, _ in model.named_parameters() if ".lora_A" in name}
    layers = {name for name, layer in model.named_modules() if hasattr(layer, "lora_A")}
    assert not any(name.endswith(".qkv") for name in layers) and updated
    model.train()(IMAGES).logits.sum().backward()
    factors = [p for name, p in model.named_parameters() if ".lora_B" in name]
    assert factors and all(p.grad is not None and p.grad.abs().sum() > 0 for p in factors)
    with pytest.raises(UsageError, match="reads the weights of .*qkv without calling it"):
        tuning.tune(*built("eva", "model.tune=lora", "model.lora.targets=[qkv]"))


@needs_peft
def test_what_cannot_be_is_one_line(monkeypatch):
    model, settings = built("dinov2", "model.tune=lora", "model.lora.targets=[query]")
    with pytest.raises(UsageError, match="no linear layer of dinov2:tiny14 is named query .*qkv"):
        tuning.tune(model, settings)
    settings = load_preset("playground", ["model.tune=lora"]).model
    model = checkpoint.build_model(settings, 5)
    with pytest.raises(UsageError, match="resnet18 has no linear layers: set model.tune to full"):
        tuning.tune(model, settings)
    with pytest.raises(UsageError, match="lora does nothing: model.tune is full"):
        load_preset("playground", ["model.lora.rank=4"])
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"needs peft: pip install 'fgda\[lora\]'"):
        tuning.tune(*built("dinov2", "model.tune=lora"))


@pytest.mark.parametrize("tune", ["frozen", pytest.param("lora", marks=needs_peft)])
def test_a_teacher_holds_what_is_trained_alone(tune):
    model, settings = built("dinov2", f"model.tune={tune}")
    tuning.tune(model, settings)
    teacher = model.twin()
    own = dict(teacher.named_parameters())
    for name, parameter in model.named_parameters():
        assert (own[name] is parameter) == (name in model.frozen), name
    frozen = tuning.frozen_ids(model)
    state = tuning.trained_state(teacher, frozen)
    assert not set(state) & model.frozen and any("neck" in name for name in state)
    moved(model)
    tuning.load_trained(teacher, tuning.trained_state(model, frozen), frozen)
    assert torch.equal(teacher.eval()(IMAGES).logits, model.eval()(IMAGES).logits)


def test_a_frozen_twin_shares_the_encoders_weights():
    model, settings = built("dinov2", "model.tune=frozen")
    tuning.tune(model, settings)
    other, _ = built("dinov2")
    count = tuning.share_frozen(other.backbone, model)
    assert count == sum(p.numel() for p in model.backbone.parameters())
    assert other.backbone.blocks[0].attn.qkv.weight is model.backbone.blocks[0].attn.qkv.weight
    # other values stay
    third, _ = built("dinov2")
    with torch.no_grad():
        third.backbone.blocks[0].attn.qkv.weight += 1
    tuning.share_frozen(third.backbone, model)
    shared = model.backbone.blocks[0].attn.qkv.weight
    assert third.backbone.blocks[0].attn.qkv.weight is not shared


def test_a_frozen_encoder_drops_nothing_and_its_norms_stay():
    model, settings = built(
        "vit", "model.tune=frozen", "model.drop_path=0.5", "model.backbone=timm:convnext_atto"
    )
    tuning.tune(model, settings)
    model.set_batch_norm("train")
    model.train()
    x = IMAGES.repeat(1, 1, 2, 2)
    first = model.backbone(model.normalise(x))[-1]
    assert torch.equal(first, model.backbone(model.normalise(x))[-1])
    assert not any(p.requires_grad for p in model.backbone.parameters())


RUN = (
    *NETWORKS["dinov2"],
    *SMALL,
    "optim.kind=adamw",
    "optim.lr=0.001",
    "optim.layer_decay=0.9",
    "adapt.average_last=0.5",
)


def command(method: str, tune: str, init, data_root, out, *more):
    return (
        "adapt",
        *set_flags(*RUN, f"model.tune={tune}", *more),
        "--method",
        method,
        "--init",
        init,
        "--data-root",
        data_root,
        "--device",
        "cpu",
        "--out",
        out,
    )


@pytest.fixture(scope="module")
def start(data_root, tmp_path_factory):
    """A source model on a transformer, trained whole."""
    out = tmp_path_factory.mktemp("tuned") / "pre"
    done = fgda(
        "pretrain", *set_flags(*RUN), "--data-root", data_root, "--device", "cpu", "--out", out
    )
    assert done.returncode == 0, done.stderr
    return out / "checkpoints/final.pth"


@pytest.mark.parametrize("method", ["mic", "fgda"])
@pytest.mark.parametrize("tune", ["frozen", pytest.param("lora", marks=needs_peft)])
def test_a_run_resumes_to_the_bit_ships_a_plain_network_and_keeps_what_it_trains(
    data_root, start, tmp_path, monkeypatch, method, tune
):
    preset = load_preset("playground", [*TINY, *RUN, f"model.tune={tune}"], method)
    job = stages.Job(preset, data_root, tmp_path / "whole", device="cpu", reporter=QUIET)
    stages.adapt(job, start)
    cut = replace(job, out=tmp_path / "cut")
    crash_at(monkeypatch, 5, lambda: stages.adapt(cut, start))
    stages.adapt(cut, start)
    final = tmp_path / "whole/checkpoints/final.pth"
    assert same(final, tmp_path / "cut/checkpoints/final.pth")
    last = tmp_path / "cut/checkpoints/last.pth"
    kept = checkpoint.load(last, whole=False)
    assert "model" not in kept and not any("base_layer" in key for key in kept["train"]["model"])
    stored = sum(value.numel() for value in kept["train"]["model"].values())
    assert stored < 0.4 * sum(value.numel() for value in checkpoint.load(final)["model"].values())
    # the shipped network is an ordinary one
    content = checkpoint.load(final)
    assert not any("lora" in key or "base_layer" in key for key in content["model"])
    model, _ = checkpoint.load_model(final)
    assert model.tuned == "full"
    # last.pth is evaluated too, completed by its start
    completed = checkpoint.load(last)["model"]
    assert all(torch.allclose(completed[key], content["model"][key]) for key in completed)


@needs_peft
def test_adapters_alone_are_a_checkpoint_beside_their_start(data_root, start, tmp_path):
    assert fgda(*command("fgda", "lora", start, data_root, tmp_path / "run")).returncode == 0
    final = tmp_path / "run/checkpoints/final.pth"
    small = tmp_path / "small.pth"
    done = fgda("export", final, "--adapters", "--out", small)
    assert done.returncode == 0 and "M parameters" in done.stdout, done.stderr
    assert small.stat().st_size < final.stat().st_size / 2
    whole, alone = (checkpoint.load(path)["model"] for path in (final, small))
    assert all(torch.allclose(whole[key], alone[key], atol=1e-6) for key in whole)
    scores = [
        json.loads(fgda("evaluate", path, "--data-root", data_root, "--json").stdout)
        for path in (final, small)
    ]
    assert scores[0]["miou"] == pytest.approx(scores[1]["miou"], abs=0.05)
    # as a start
    again = fgda(*command("minent", "lora", small, data_root, tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    refused = fgda("export", start, "--adapters", "--out", tmp_path / "x.pth")
    assert refused.returncode == 2 and "was trained whole" in refused.stderr
    # beside other weights they are refused
    other = checkpoint.load(start)
    other["model"]["backbone.blocks.0.attn.qkv.weight"] += 1
    checkpoint.save(start.with_name("other.pth"), other)
    content = checkpoint.load(small, whole=False)
    checkpoint.save(
        tmp_path / "wrong.pth",
        {k: v for k, v in content.items() if k not in ("format", "version")}
        | {"init": str(start.with_name("other.pth"))},
    )
    with pytest.raises(FgdaError, match="not those beside which they were trained"):
        checkpoint.load(tmp_path / "wrong.pth")


CACHED = (
    "model.multi_level=false",
    "model.tune=frozen",
    "data.colour_jitter=[0,0,0,0]",
    "data.flip=true",
    "run.cache_features=true",
    "pretrain.iterations=12",
)


def test_features_of_a_frozen_encoder_are_computed_once(data_root, tmp_path, monkeypatch):
    """The losses are those without a cache, to bf16; a resumed run goes on to the bit."""
    preset = load_preset("playground", [*TINY, *CACHED])
    job = stages.Job(preset, data_root, tmp_path / "cached", device="cpu", reporter=QUIET)
    stages.pretrain(job)
    cut = replace(job, out=tmp_path / "cut")
    crash_at(monkeypatch, 7, lambda: stages.pretrain(cut))
    stages.pretrain(cut)
    assert same(*(tmp_path / name / "checkpoints/final.pth" for name in ("cached", "cut")))
    (folder,) = (tmp_path / "cached/features").iterdir()
    # ten images, mirrored and not
    assert 10 <= len(list(folder.iterdir())) <= 20
    plain = load_preset("playground", [*TINY, *CACHED[:-2], *CACHED[-1:]])
    stages.pretrain(replace(job, preset=plain, out=tmp_path / "plain"))
    losses = [
        [
            json.loads(line)["seg"]
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
            if '"seg"' in line
        ]
        for name in ("cached", "plain")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)


@pytest.mark.parametrize(
    "sets, why",
    [
        (("model.tune=full",), "the encoder is trained: set model.tune=frozen"),
        (("data.colour_jitter=[0.5,0,0,0]",), "change at random by data.colour_jitter"),
        (("data.source.crop=[32,32]",), "change at random by data.source.crop"),
    ],
)
def test_features_that_would_not_be_the_same_twice_are_refused(data_root, tmp_path, sets, why):
    preset = load_preset("playground", [*TINY, *CACHED, *sets])
    job = stages.Job(preset, data_root, tmp_path / "run", device="cpu", reporter=QUIET)
    with pytest.raises(UsageError, match=why):
        stages.pretrain(job)


def test_a_method_that_mixes_images_and_a_full_disk_are_refused(
    data_root, start, tmp_path, monkeypatch
):
    plain = ("data.colour_jitter=[0,0,0,0]", "run.cache_features=true")
    done = fgda(*command("dacs", "frozen", start, data_root, tmp_path / "run", *plain))
    assert done.returncode == 2 and "makes images of its own in each step" in done.stderr
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    done = fgda(*command("minent", "frozen", start, data_root, tmp_path / "full", *plain))
    assert done.returncode == 1 and "run.cache_features takes" in done.stderr, done.stderr
