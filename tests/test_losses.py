"""Golden values worked by hand, gradients in float64, and the identities that the fast forms rely
on.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fgda_cli import chunked, losses


def logits_of(*probs: float) -> torch.Tensor:
    """One pixel whose softmax is `probs`: `[1,K,1,1]`."""
    return torch.tensor(probs, dtype=torch.float64).log().view(1, -1, 1, 1)


def test_segmentation_loss_is_minus_log_of_the_true_class_and_skips_ignored_pixels():
    logits = torch.cat([logits_of(0.2, 0.8), logits_of(0.5, 0.5), logits_of(0.9, 0.1)], dim=3)
    labels = torch.tensor([[[1, 0, 255]]])
    assert losses.segmentation_loss(logits, labels).item() == pytest.approx(
        -(math.log(0.8) + math.log(0.5)) / 2
    )


def test_segmentation_loss_of_ignored_pixels_only_is_zero_with_zero_gradient():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = losses.segmentation_loss(logits, torch.full((1, 2, 2), 255))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def published_domain_loss(domain_logits, logits, domain, size, align):
    """Return the soft cross-entropy against the 2K labels, both built in full ([FADA])."""
    code = losses.class_encoding(losses.upsample(logits, size, align))
    none = torch.zeros_like(code)
    soft = torch.cat([code, none] if domain == "source" else [none, code], dim=1)
    full = losses.upsample(domain_logits, size, align)
    return torch.nn.functional.cross_entropy(full, soft)


def test_the_class_encoding_clips_without_renormalising_and_is_detached():
    logits = logits_of(0.95, 0.05).requires_grad_()
    code = losses.class_encoding(logits, temperature=1.0)
    assert code.flatten().tolist() == pytest.approx([0.9, 0.05])
    assert not code.requires_grad
    ratio = 4 ** (1 / 1.8)
    by_default = losses.class_encoding(logits_of(0.8, 0.2))
    assert by_default[0, 0, 0, 0].item() == pytest.approx(ratio / (1 + ratio))


def test_a_domain_loss_by_hand():
    """One pixel, two classes: a = [0.6, 0.4], softmax of the domain logits [0.1, 0.2, 0.3, 0.4]."""
    found = losses.domain_losses(
        logits_of(0.1, 0.2, 0.3, 0.4), logits_of(0.6, 0.4), (1, 1), temperature=1.0
    )
    on_source = -(0.6 * math.log(0.1) + 0.4 * math.log(0.2))
    on_target = -(0.6 * math.log(0.3) + 0.4 * math.log(0.4))
    assert found["source"].loss.item() == pytest.approx(on_source)
    assert found["target"].loss.item() == pytest.approx(on_target)
    assert found["source"].grad.flatten().tolist() == pytest.approx([-0.5, -0.2, 0.3, 0.4])
    assert found["target"].grad.flatten().tolist() == pytest.approx([0.1, 0.2, -0.3, 0.0])


def test_entropy_is_one_for_uniform_and_zero_for_certain_predictions():
    assert losses.entropy_map(torch.zeros(1, 19, 1, 1)).item() == pytest.approx(1, abs=1e-6)
    certain = torch.full((1, 19, 1, 1), -1e4)
    certain[:, 3] = 1e4
    assert losses.entropy_map(certain).item() == 0


def test_entropy_by_hand():
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert losses.entropy_map(logits_of(0.25, 0.75)).item() == pytest.approx(expected)


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=19))
@settings(max_examples=100, deadline=None)
def test_entropy_and_its_gradient_are_finite_and_in_range_for_any_logits(values):
    logits = torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1).requires_grad_()
    entropy = losses.entropy_map(logits)
    entropy.sum().backward()
    assert -1e-9 <= entropy.item() <= 1 + 1e-9
    assert torch.isfinite(logits.grad).all()


def test_weighted_self_information_sums_to_the_entropy_and_survives_zeros():
    logits = torch.randn(1, 5, 3, 3, dtype=torch.float64)
    information = losses.weighted_self_information(torch.softmax(logits, 1))
    torch.testing.assert_close(information.sum(1), losses.entropy_map(logits))
    assert (
        losses.weighted_self_information(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)).abs().sum() == 0
    )


def test_binary_domain_loss_by_hand():
    logits = torch.tensor([[2.0]]).view(1, 1, 1, 1)
    assert losses.binary_domain_loss(logits, "source").item() == pytest.approx(
        math.log(1 + math.exp(2.0))
    )
    assert losses.binary_domain_loss(logits, "target").item() == pytest.approx(
        math.log(1 + math.exp(-2.0))
    )


def test_disagreement_by_hand():
    first = torch.tensor([0.6, 0.8]).view(1, 2, 1, 1)
    second = torch.tensor([0.8, 0.6]).view(1, 2, 1, 1)
    assert losses.disagreement(first, first).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.disagreement(first, second).item() == pytest.approx(1 - 0.96, abs=1e-6)


def test_weight_divergence_is_least_for_opposite_heads():
    weights = torch.tensor([3.0, 4.0])
    assert losses.weight_divergence(weights, -weights).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.weight_divergence(weights, torch.tensor([4.0, -3.0])).item() == pytest.approx(1.0)
    assert losses.weight_divergence(weights, 2 * weights).item() == pytest.approx(2.0)


def test_weighted_segmentation_loss_by_hand():
    logits = torch.cat([logits_of(0.2, 0.8), logits_of(0.5, 0.5)], dim=3)
    weight = torch.tensor([[[0.25, 2.0]]], dtype=torch.float64)
    expected = -(0.25 * math.log(0.8) + 2 * math.log(0.5)) / 2
    assert losses.segmentation_loss(
        logits, torch.tensor([[[1, 0]]]), weight=weight
    ).item() == pytest.approx(expected)


CODE = torch.softmax(
    torch.randn(1, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 1
)
GRADIENTS = {
    "segmentation": (
        lambda z: losses.segmentation_loss(z, torch.tensor([[[0, 1], [255, 2]]]), temperature=1.8),
        3,
    ),
    "entropy": (losses.entropy_loss, 3),
    "self-information": (
        lambda z: losses.weighted_self_information(torch.softmax(z, 1)).square().mean(),
        3,
    ),
    "weighted": (
        lambda z: losses.segmentation_loss(
            z, torch.tensor([[[0, 1], [255, 2]]]), weight=CODE[:, 0]
        ),
        3,
    ),
    "disagreement": (lambda z: losses.disagreement(torch.softmax(z, 1), CODE).mean(), 3),
    "divergence": (lambda z: losses.weight_divergence(z.flatten(), CODE.flatten()), 3),
    "binary": (lambda z: losses.binary_domain_loss(z, "target", weight=CODE[:, :1]), 1),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_in_float64(name):
    function, channels = GRADIENTS[name]
    torch.manual_seed(3)
    assert torch.autograd.gradcheck(
        function, torch.randn(1, channels, 2, 2, dtype=torch.float64, requires_grad=True)
    )


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize(
    "low, size",
    [
        ((5, 7), (33, 50)),
        ((1, 4), (8, 9)),
        ((6, 6), (6, 6)),
        ((9, 5), (3, 17)),
        ((40, 5), (5, 600)),
    ],
)
def test_chunks_equal_the_upsampled_loss_in_value_and_gradient(low, size, align, monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", 700)  # several chunks
    torch.manual_seed(1)
    labels = torch.randint(0, 4, (2, *size))
    labels[torch.rand(2, *size) < 0.2] = 255
    forms = {
        "segmentation": (
            lambda z: losses.segmentation_loss(z, labels, temperature=1.8, align_corners=align),
            lambda z: torch.nn.functional.cross_entropy(
                losses.upsample(z, size, align) / 1.8, labels, ignore_index=255
            ),
        ),
        "entropy": (
            lambda z: losses.entropy_loss(z, 1.3, size, align_corners=align),
            lambda z: losses.entropy_loss(losses.upsample(z, size, align), 1.3),
        ),
    }
    for name, (by_chunks, whole) in forms.items():
        z = torch.randn(2, 4, *low, dtype=torch.float64, requires_grad=True)
        found = by_chunks(z)
        expected = whole(z)
        torch.testing.assert_close(found, expected, msg=name)
        torch.testing.assert_close(by_chunks(z.detach()), expected.detach(), msg=name)
        grads = [torch.autograd.grad(3 * loss, z)[0] for loss in (found, expected)]
        torch.testing.assert_close(*grads, msg=name)


# of the logits; the discriminator's is 4x6
@pytest.mark.parametrize("grid", [(4, 6), (7, 9)])
@pytest.mark.parametrize("align", [True, False])
def test_the_domain_losses_equal_the_published_soft_label_losses(align, grid, monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", 700)
    torch.manual_seed(1)
    size = (21, 34)
    domain_logits = torch.randn(2, 8, 4, 6, dtype=torch.float64, requires_grad=True)
    logits = 3 * torch.randn(2, 4, *grid, dtype=torch.float64)
    found = losses.domain_losses(domain_logits, logits, size, align_corners=align)
    assert [*found] == ["source", "target"]
    for domain, (loss, grad) in found.items():
        expected = published_domain_loss(domain_logits, logits, domain, size=size, align=align)
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(grad, torch.autograd.grad(expected, domain_logits)[0])


def test_weighted_self_information_has_finite_gradients_where_a_probability_is_zero():
    """Case 13: softmax([8, 3, -120]) holds an exact 0 in fp32."""
    logits = torch.tensor([[[[8.0]], [[3.0]], [[-120.0]]]], requires_grad=True)
    probs = torch.softmax(logits, dim=1)
    assert float(probs.detach().min()) == 0
    information = losses.weighted_self_information(probs)
    information.sum().backward()
    assert torch.isfinite(logits.grad).all() and float(information[0, 2].detach()) == 0


@pytest.mark.parametrize("extreme", [[0.0, 0.0, 300.0], [1e4, -1e4, 0.0], [-200.0, -200.0, -200.0]])
def test_every_loss_has_finite_gradients_at_extreme_logits(extreme):
    for loss in (
        lambda z: losses.entropy_loss(z),
        lambda z: losses.segmentation_loss(z, torch.zeros(1, 1, 1, dtype=torch.uint8)),
        lambda z: losses.segmentation_loss(
            z, torch.zeros(1, 1, 1, dtype=torch.uint8), focal_gamma=2.0
        ),
        lambda z: losses.weighted_self_information(torch.softmax(z, 1)).sum(),
        lambda z: losses.disagreement(torch.softmax(z, 1), torch.softmax(-z, 1)).mean(),
    ):
        logits = torch.tensor(extreme).view(1, 3, 1, 1).requires_grad_()
        value = loss(logits)
        value.backward()
        assert torch.isfinite(value.detach()) and torch.isfinite(logits.grad).all()


def test_binary_domain_loss_weights_may_carry_a_gradient():
    logits = torch.randn(2, 1, 3, 4)
    weight = torch.rand(2, 1, 3, 4).requires_grad_()
    loss = losses.binary_domain_loss(logits, "target", weight)
    loss.backward()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.ones_like(logits), weight=weight.detach()
    )
    torch.testing.assert_close(loss.detach(), expected)
    assert (weight.grad > 0).all()


def test_one_class_has_no_entropy():
    """Case 48: a division by log 1 made maps of NaN."""
    logits = torch.randn(2, 1, 3, 4, requires_grad=True)
    assert (losses.entropy_map(logits) == 0).all() and losses.entropy_loss(logits, size=(6, 8)) == 0
    losses.weighted_self_information(torch.softmax(logits, 1)).sum().backward()
    assert torch.isfinite(logits.grad).all()
