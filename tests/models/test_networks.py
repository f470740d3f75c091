"""Networks against torchvision's own, and the shapes and statistics they promise."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from fgda_cli.models import weights
from fgda_cli.models.discriminators import BinaryDiscriminator, FineGrainedDiscriminator
from fgda_cli.models.encoders import resnet
from fgda_cli.models.heads import AsppHead
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.runtime.errors import FgdaError


def features_of(reference, images):
    stem = reference.maxpool(reference.relu(reference.bn1(reference.conv1(images))))
    layer3 = reference.layer3(reference.layer2(reference.layer1(stem)))
    return layer3, reference.layer4(layer3)


@pytest.mark.parametrize(
    "name, stride, dilate",
    [
        ("resnet50", 8, [False, True, True]),
        ("resnet50", 16, [False, False, True]),
        ("resnet101", 8, [False, True, True]),
    ],
)
def test_torchvision_variant_equals_torchvision(name, stride, dilate):
    torch.manual_seed(0)
    reference = (
        getattr(torchvision.models, name)(weights=None, replace_stride_with_dilation=dilate)
        .eval()
        .double()
    )
    ours = resnet.build(name, "torchvision", stride, width=64).eval().double()
    ours.load_state_dict(resnet.adapt_weights(reference.state_dict(), "", 8))
    images = torch.randn(1, 3, 65, 97, dtype=torch.float64)
    with torch.no_grad():
        for found, expected in zip(ours(images)[-2:], features_of(reference, images), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_folded_batch_norm_gives_the_gradients_of_the_unfolded_pair(name):
    torch.manual_seed(0)
    net = resnet.build(name, "torchvision", 8, width=8).double()
    images = torch.randn(2, 3, 33, 49, dtype=torch.float64)
    found = {}
    # running statistics that are not 0 and 1
    net.train()(images)
    for folded in (True, False):
        net.eval().zero_grad()
        with pytest.MonkeyPatch.context() as patch:
            if not folded:
                patch.setattr(resnet, "conv_norm", lambda conv, norm, x, fixed: norm(conv(x)))
            sum(features.square().mean() for features in net(images)).backward()
        found[folded] = {
            key: p.grad.clone() for key, p in net.named_parameters() if "bn" not in key
        }
    for key, grad in found[False].items():
        torch.testing.assert_close(found[True][key], grad, rtol=1e-9, atol=1e-12, msg=key)


def test_checkpointed_activations_give_the_same_gradients():
    torch.manual_seed(0)
    net = resnet.build("resnet50", "torchvision", 8, width=8).eval()
    images = torch.randn(1, 3, 33, 49)
    found = []
    for chosen in (False, True):
        net.checkpoint_activations = chosen
        net.zero_grad()
        sum(features.square().mean() for features in net(images)).backward()
        found.append([parameter.grad.clone() for parameter in net.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


def test_resnet18_at_stride_32_equals_torchvision():
    reference = torchvision.models.resnet18(weights=None).eval()
    ours = resnet.build("resnet18", "torchvision", 32, width=64).eval()
    ours.load_state_dict(resnet.adapt_weights(reference.state_dict(), "", 8))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            ours(images)[-1], features_of(reference, images)[1], rtol=1e-4, atol=1e-4
        )


def test_caffe_variant_strides_in_the_first_convolution_and_dilates_first_blocks():
    net = resnet.build("resnet50", "caffe", 8, width=64)
    assert net.layer2[0].conv1.stride == (2, 2) and net.layer2[0].conv2.stride == (1, 1)
    assert net.layer3[0].conv2.dilation == (2, 2) and net.layer4[0].conv2.dilation == (4, 4)
    assert net.maxpool.ceil_mode
    ours = resnet.build("resnet50", "torchvision", 8, width=64)
    assert ours.layer3[0].conv2.dilation == (1, 1) and ours.layer4[0].conv2.dilation == (2, 2)
    assert ours.layer4[1].conv2.dilation == (4, 4)


def test_aspp_sums_its_branches_and_starts_small():
    head = AsppHead(8, 3)
    x = torch.randn(1, 8, 20, 20)
    torch.testing.assert_close(head(x), sum(conv(x) for conv in head.convs))
    assert (
        [c.dilation[0] for c in head.convs] == [6, 12, 18, 24] == [c.padding[0] for c in head.convs]
    )
    assert head.convs[0].weight.std().item() == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize("multi_level", [True, False])
def test_deeplab_shapes_and_levels(multi_level):
    net = Segmenter(19, "resnet18", width=8, multi_level=multi_level).train()
    output = net(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    assert output.logits.shape == (2, 19, 8, 12) and output.features.shape == (2, 64, 8, 12)
    assert (output.aux_logits is not None) == multi_level
    assert net.eval()(torch.zeros(1, 3, 64, 96)).aux_logits is None


def test_normalisation_of_both_variants():
    pixel = torch.tensor([255, 128, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    rgb = Segmenter(2, "resnet18", width=8).normalise(pixel).flatten().tolist()
    assert rgb == pytest.approx(
        [(1 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (0 - 0.406) / 0.225], rel=1e-4
    )
    bgr = Segmenter(2, "resnet18", variant="caffe", width=8).normalise(pixel).flatten().tolist()
    assert bgr == pytest.approx(
        [0 - 104.00698793, 128 - 116.66876762, 255 - 122.67891434], rel=1e-4
    )


def test_frozen_batch_norm_stays_as_it_is_in_training():
    net = Segmenter(3, "resnet18", width=8).train()
    net.set_batch_norm("frozen")
    before = net.backbone.bn1.running_mean.clone()
    net.train()(torch.rand(2, 3, 64, 64) * 255).logits.sum().backward()
    assert torch.equal(net.backbone.bn1.running_mean, before)
    assert all(m.weight.grad is None for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    grouped = sum(p.numel() for group in net.parameter_groups(1.0, 10.0) for p in group["params"])
    assert grouped == sum(p.numel() for p in net.parameters() if p.requires_grad)


def test_discriminators_have_the_published_layers():
    fine = FineGrainedDiscriminator(2048, 19)
    convs = [m for m in fine.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convs] == [
        (2048, 256),
        (256, 128),
        (128, 19),
        (128, 19),
    ]
    assert fine(torch.zeros(1, 2048, 5, 7)).shape == (1, 38, 5, 7)
    binary = [m for m in BinaryDiscriminator(19).modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in binary] == [64, 128, 256, 512, 1]
    assert {c.kernel_size + c.stride for c in binary} == {(4, 4, 2, 2)}


def test_missing_weights_say_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("FGDA_WEIGHTS", str(tmp_path))

    def no_network(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(FgdaError) as caught:
        weights.find_weights("resnet101", "torchvision", "imagenet")
    assert (
        str(tmp_path / "resnet101-63fe2227.pth") in str(caught.value)
        and str(caught.value).count("\n") == 1
    )
    assert not list(tmp_path.iterdir())


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "half.pth"
    torch.save({"conv1.weight": torch.zeros(8, 3, 7, 7)}, path)
    net = resnet.build("resnet18", "torchvision", 8, width=8)
    with pytest.raises(FgdaError, match="missing"):
        weights.load_backbone(net, "resnet18", "torchvision", weights=str(path))


@pytest.mark.parametrize("size", [(20, 31), (7, 40), (1, 1)])
def test_the_head_computes_the_sum_of_its_dilated_convolutions(size):
    torch.manual_seed(0)
    head = AsppHead(6, 5).double()
    found = {}
    features = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    ways = {
        "convolutions": lambda x: sum(conv(x) for conv in head.convs),
        "taps": head.by_taps,
        "folds": head.by_folds,
    }
    for name, forward in ways.items():
        logits = forward(features)
        found[name] = [
            logits,
            *torch.autograd.grad(logits.sin().sum(), [features, *head.parameters()]),
        ]
    for way in ("taps", "folds"):
        for ours, expected in zip(found[way], found["convolutions"], strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_fixed_norms_of_several_epsilons_are_each_their_own():
    net = torch.nn.ModuleList(
        [
            torch.nn.BatchNorm2d(3, eps=1e-5),
            torch.nn.BatchNorm2d(2, eps=0.1),
            torch.nn.BatchNorm2d(4),
        ]
    )
    for layer in net:
        for values in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
            values.uniform_(0.5, 2.0)
    net.eval()
    net[2].train()
    fixed = resnet.fixed_norms(net)
    assert set(fixed) == {net[0], net[1]}
    for layer, (scale, shift) in fixed.items():
        x = torch.randn(1, layer.num_features, 2, 2)
        torch.testing.assert_close(x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1), layer(x))
