"""DISE: sizes of its networks, its norm and losses by hand, and who learns from what."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
import torchvision
from torch.autograd import gradcheck

from fgda_cli.methods import dise
from fgda_cli.methods.offline import OfflineData
from fgda_cli.methods.pieces.reconstruction import (
    Decoder,
    ImageDiscriminator,
    LayerNorm,
    OutputDiscriminator,
    TextureEncoder,
)
from fgda_cli.methods.pieces.translation import to_unit
from fgda_cli.runtime.errors import FgdaError
from tests.helpers import batch, make

SMALL = {"decoder_width": 16, "image_width": 8}


def test_networks_have_the_published_sizes():
    assert ImageDiscriminator(8)(torch.zeros(1, 3, 256, 512)).shape == (1, 1, 16, 32)
    assert OutputDiscriminator(5, 8)(torch.zeros(1, 5, 256, 512)).shape == (1, 1, 17, 33)
    assert TextureEncoder(16, 8)(torch.zeros(2, 16, 64, 128)).shape == (2, 8)


@pytest.mark.parametrize("structure", [(33, 65), (32, 64), (16, 32)])
def test_the_decoder_draws_images_of_the_size_asked_for(structure):
    decoder = Decoder(4, 16)
    seen = []
    decoder.leave.register_forward_hook(
        lambda layer, inputs, output: seen.append(output.shape[-2:])
    )
    image = decoder(torch.randn(1, 4, *structure), torch.randn(1, 8), True, (256, 512))
    assert image.shape == (1, 3, 256, 512) and float(image.detach().abs().max()) <= 1
    # nothing is resized at stride 8
    assert seen[0] == ((256, 512) if structure != (16, 32) else (128, 256))


def test_layer_norm_by_hand():
    norm = LayerNorm(1).double()
    with torch.no_grad():
        norm.scale.fill_(1.0)
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).view(1, 1, 1, 3)
    assert norm(x).flatten().tolist() == pytest.approx([-1, 0, 1], abs=1e-4)
    assert gradcheck(norm, torch.randn(2, 1, 2, 3, dtype=torch.float64, requires_grad=True))


def stages(*values, dtype=torch.float64):
    return [torch.full((1, 2, 3, 3), float(value), dtype=dtype) for value in values]


def test_perceptual_losses_by_hand():
    assert float(dise.reconstruction_loss(stages(1, 1, 1, 1), stages(0, 0, 0, 0))) == pytest.approx(
        1 + 1 / 4 + 1 / 8 + 1 / 16
    )
    found = dise.translation_loss(stages(0, 0, 3, 5), stages(9, 9, 1, 4), stages(2, 4, 9, 9))
    assert float(found) == pytest.approx(0.25 * 2 + 1 + 2 + 4)
    torch.manual_seed(0)
    made = tuple(torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(4))
    zeros = [torch.zeros(1, 2, 2, 2, dtype=torch.float64)] * 4
    assert gradcheck(lambda *m: dise.reconstruction_loss(list(m), zeros), made)
    others = [torch.randn(1, 2, 2, 2, dtype=torch.float64) for _ in range(4)]
    assert gradcheck(lambda *m: dise.translation_loss(list(m), others, others[::-1]), made)


def test_pixels_go_to_unit_range_and_back():
    values = torch.arange(256)
    torch.testing.assert_close(dise.to_pixels(to_unit(values)), values.float())


@pytest.mark.parametrize("multi_level", [False, True])
def test_terms_and_who_learns(multi_level):
    method = make("dise", multi_level, torch.float32, **SMALL)
    terms = method.step(batch())
    expected = {
        "seg",
        "seg_translated",
        "reconstruction",
        "translation",
        "image_adv",
        "main_adv",
        "main_disc",
        "target_image_disc",
        "source_image_disc",
    }
    aux = {"seg_aux", "seg_aux_translated", "aux_adv", "aux_disc"} if multi_level else set()
    assert set(terms) == expected | aux
    for name, module in method.modules.items():
        learns = [p.grad is not None for p in module.parameters() if p.requires_grad]
        assert all(learns) and bool(learns) == (name != "perception"), name
    assert method.model.backbone.conv1.weight.grad.abs().sum() > 0


def test_image_discriminators_learn_every_fifth_iteration():
    method = make("dise", False, torch.float32, **SMALL)
    for iteration, learns in ((0, True), (1, False), (5, True)):
        for module in method.modules.values():
            module.zero_grad()
        method.begin_iteration(iteration, 10, lambda: iter(()))
        terms = method.step(batch())
        assert ("target_image_disc" in terms) == learns
        assert (method.modules["target_image"].layers[0].weight.grad is not None) == learns


def test_making_images_teaches_no_discriminator():
    """Their gradient is that of their own losses alone."""
    method = make("dise", False, torch.float32, **SMALL)
    data = batch()
    method.step(data)
    found = method.modules["main"].layers[0].weight.grad.clone()
    method.modules["main"].zero_grad()
    source = method.forward(data.source, is_target=False)
    target = method.forward(data.target)
    images = method.put_together(source, target, data)
    method.judge_losses(images, source, target, data)["main_disc"].backward()
    torch.testing.assert_close(found, method.modules["main"].layers[0].weight.grad)


def test_the_network_that_compares_stays_as_it_began():
    method = make("dise", False, torch.float32, **SMALL)
    before = {
        key: value.clone() for key, value in method.modules["perception"].state_dict().items()
    }
    method.step(batch())
    assert all(
        torch.equal(before[key], value)
        for key, value in method.modules["perception"].state_dict().items()
    )


def test_vgg19_compares_where_asked(monkeypatch, tmp_path):
    """The published judge: torchvision's VGG-19 after its first activations, ImageNet's mean and
    deviation.
    """
    torch.manual_seed(0)
    theirs = torchvision.models.vgg19(weights=None)
    monkeypatch.setenv("FGDA_WEIGHTS", str(tmp_path))
    torch.save(theirs.state_dict(), tmp_path / "vgg19-dcbb9e9d.pth")
    method = make("dise", False, torch.float32, perception="vgg19", **SMALL)
    method.before_training(OfflineData(None, tmp_path, torch.device("cpu")))
    images = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    x = (images / 255 - mean) / std
    expected = []
    for number, layer in enumerate(theirs.features[:30]):
        x = layer(x)
        if number in (1, 6, 11, 20, 29):
            expected.append(x.clone())
    with torch.no_grad():
        for ours, wanted in zip(method.perceive(images), expected, strict=True):
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    # looked at, never saved
    assert "perception" not in method.modules
    method.references["perception"].requires_grad_(False)  # as the engine does
    assert (
        "reconstruction" in method.step(batch()) and method.step(batch())["translation"].item() > 0
    )


def test_vgg19_that_cannot_be_had_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("FGDA_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", mock.Mock(side_effect=OSError("no network"))
    )
    method = make("dise", False, torch.float32, perception="vgg19", **SMALL)
    with pytest.raises(FgdaError, match=r"put it at .*vgg19-dcbb9e9d\.pth"):
        method.before_training(OfflineData(None, tmp_path, torch.device("cpu")))
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "vgg19-dcbb9e9d.pth")
    with pytest.raises(FgdaError, match="does not fit VGG-19"):
        method.before_training(OfflineData(None, tmp_path, torch.device("cpu")))
