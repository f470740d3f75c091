"""DACS, FDA, PyCDA, AdaptPatch, SIBAN: every loss by a number worked out by hand, and its gradient
in float64.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.autograd import gradcheck

from fgda_cli import losses
from fgda_cli.methods.fda import low_frequencies_of, thresholds
from fgda_cli.methods.pieces.patches import PatchDiscriminator, histograms, k_means
from fgda_cli.methods.siban import divergence, next_beta
from tests.helpers import batch, make

# DACS


def test_dacs_weighs_by_the_share_of_sure_pixels_of_the_whole_batch():
    probs = torch.tensor([[[0.97, 0.96]], [[0.99, 0.5]]])
    assert make("dacs", False).sure_share(probs).flatten().tolist() == [0.5, 0.5]
    assert make("fgda-st", False).sure_share(
        torch.tensor([[[0.97, 0.96]], [[0.99, 0.98]]])
    ).flatten().tolist() == [0.5, 1.0]


def test_dacs_is_the_source_loss_and_the_mixed_one():
    method = make("dacs", False)
    assert set(method.step(batch())) == {"seg", "self_training"} and not method.discriminators
    assert method.settings.ema == 0.99


# FDA


def test_the_amplitude_of_low_frequencies_alone_is_swapped():
    x = torch.arange(16, dtype=torch.float64)
    wave = torch.cos(2 * torch.pi * 6 * x / 16).expand(1, 3, 16, 16)
    # b = 1: the mean moves, frequency 6 does not
    found = low_frequencies_of(10 + 2 * wave, 50 + 4 * wave, 0.07)
    torch.testing.assert_close(found, 50 + 2 * wave)


def test_the_window_is_symmetric_so_that_nothing_imaginary_is_dropped():
    torch.manual_seed(0)
    source, target = (torch.rand(2, 3, 24, 31, dtype=torch.float64) * 255 for _ in range(2))
    found = low_frequencies_of(source, target, 0.09)
    spectrum, theirs, ours = (torch.fft.fft2(image) for image in (found, target, source))
    low = torch.zeros(24, 31, dtype=torch.bool)
    for u in range(-2, 3):
        for v in range(-2, 3):
            low[u, v] = True
    torch.testing.assert_close(spectrum.abs()[..., low], theirs.abs()[..., low])
    torch.testing.assert_close(spectrum[..., ~low], ours[..., ~low])
    with pytest.raises(ValueError, match="differ in shape"):
        low_frequencies_of(source, target[..., :-1], 0.1)


def test_charbonnier_entropy_by_hand_and_by_differences():
    p = torch.linspace(0.001, 0.5, 200001, dtype=torch.float64)
    half = p[
        (losses.entropy_map(torch.stack([p.log(), (1 - p).log()])[None, :, :, None])[0, :, 0] - 0.5)
        .abs()
        .argmin()
    ]
    logits = torch.stack([half.log(), (1 - half).log()]).view(1, 2, 1, 1)
    assert float(losses.charbonnier_entropy(logits)) == pytest.approx(0.0625, abs=1e-5)
    torch.manual_seed(0)
    assert gradcheck(
        losses.charbonnier_entropy, torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    )


def test_fda_trains_on_the_source_in_the_targets_style():
    method = make("fda", False)
    data = batch()
    seen = []
    original = method.forward
    method.forward = lambda images, *how, **more: (
        seen.append(images) or original(images, *how, **more)
    )
    assert set(method.step(data)) == {"seg", "entropy"}
    assert seen[0].is_floating_point() and torch.equal(seen[1], data.target)
    torch.testing.assert_close(
        seen[0].mean((2, 3)), data.target.float().mean((2, 3)), rtol=1e-4, atol=1e-2
    )
    small = data._replace(target=data.target[..., :16, :24])
    assert method.in_target_style(small).shape == data.source.shape


def test_fdas_threshold_is_the_confidence_at_a_place_in_rising_order():
    """Confidences .1 to 1, portion .66: the eighth, .8, held at the ceiling; a class without a
    pixel keeps the ceiling.
    """
    cells = torch.tensor([999, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 9999])
    counts = torch.zeros(2, 10000, dtype=torch.int64)
    counts[0, cells] = 1
    assert thresholds(counts, 0.66, 0.9).tolist() == pytest.approx([0.8, 0.9])
    assert thresholds(counts, 0.66, 0.75).tolist() == pytest.approx([0.75, 0.75])


def test_fda_labels_what_the_mean_of_other_networks_is_sure_of():
    method = make("fda", False, labels_from=("a.pth", "b.pth"))
    data = batch()
    others = [copy.deepcopy(method.model).eval() for _ in range(2)]
    for number, network in enumerate(others):
        network.head.convs[0].bias.data += 3.0 * torch.arange(5) * (number + 1)
        method.references[f"labeller{number}"] = network
    with torch.no_grad():
        size = data.target.shape[-2:]
        probs = (
            sum(
                losses.upsample(torch.softmax(network(data.target).logits.float(), 1), size)
                for network in others
            )
            / 2
        )
    confidence, labels = probs.max(dim=1)
    method.modules["thresholds"].values.fill_(float(confidence.median()))
    found = method.pseudo_labels(data.target)
    assert torch.equal(
        found, torch.where(confidence >= confidence.median(), labels, torch.full_like(labels, 255))
    )
    # of the source's classes alone
    method.class_weights = torch.full((256,), 7.0, dtype=torch.float64)
    terms = method.step(data)
    target = method.forward(data.target).logits
    torch.testing.assert_close(
        terms["pseudo"], losses.segmentation_loss(target, found).to(terms["pseudo"])
    )


# PyCDA


def test_pycda_squares_average_logits_and_keep_what_is_sure():
    method = make("pycda", False)
    logits = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    logits[0, 0, 0, 0] = 4.0
    square = torch.nn.functional.avg_pool2d(logits, 2)
    assert float(torch.softmax(square, 1)[0, 0]) == pytest.approx(0.73106, abs=1e-5)
    assert float(method.own_labels(square)) == pytest.approx(0.31326, abs=1e-5)
    unsure = make("pycda", False, confidence=0.8)
    assert float(unsure.own_labels(square)) == 0.0


def test_pycda_weighs_no_class_of_its_own_guesses_up():
    """With class weights that reached them, the rarest class took over (sim2camvid: 0.1 mIoU)."""
    method = make("pycda", False, confidence=0.0)
    logits = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    plain = float(method.own_labels(logits))
    method.class_weights = torch.ones(256, dtype=torch.float64)
    method.class_weights[1] = 50.0
    assert float(method.own_labels(logits)) == plain


def test_pycda_image_loss_pairs_each_class_with_its_share():
    method = make("pycda", False)
    method.modules["prior"].shares = torch.tensor([0.8, 0.15, 0.05], dtype=torch.float64)
    shares = torch.full((3,), 1 / 3, dtype=torch.float64, requires_grad=True)
    assert float(method.image_loss(shares.detach())) == pytest.approx(0.63651, abs=1e-5)
    assert gradcheck(method.image_loss, shares)


def test_pycda_takes_the_shares_of_the_source(data_root):
    from fgda_cli.methods.offline import OfflineData
    from tests.helpers import samples

    method = make("pycda", False)
    method.modules["prior"].register_buffer("shares", torch.zeros(19))
    paired = samples(data_root)
    method.before_training(OfflineData(paired, data_root / "none", torch.device("cpu")))
    counts = torch.tensor([item.counts for item in paired.source_items]).double().sum(0)
    torch.testing.assert_close(method.modules["prior"].shares, (counts / counts.sum()).float())


@pytest.mark.parametrize(
    ("key", "scaled"),
    [
        ("lambda_pixel", {"pixel"}),
        ("lambda_square", {"square4", "square8"}),
        ("lambda_image", {"image"}),
    ],
)
def test_pycda_weighs_each_level_alone(key, scaled):
    plain, doubled = (
        make("pycda", True, confidence=0.21, **how).step(batch()) for how in ({}, {key: 2.0})
    )
    assert set(plain) == {"seg", "seg_aux", "pixel", "square4", "square8", "image"}
    assert all(float(plain[name].detach()) > 0 for name in scaled)
    for name, term in plain.items():
        torch.testing.assert_close(doubled[name], (2 if name in scaled else 1) * term, msg=name)


# AdaptPatch


def test_patch_histograms_by_quadrant():
    label = torch.tensor(
        [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]], dtype=torch.uint8
    )[None]
    grid, known = histograms(label, 2, (4, 4))
    assert grid[0, :, 0, 0].tolist() == [1, 0, 0, 1, 0, 1, 0.5, 0.5] and known.tolist() == [
        [[True]]
    ]
    ignored = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    ignored[0, 0, 0] = 1
    grid, known = histograms(torch.cat([ignored, ignored * 0 + 255]), 2, (4, 4))
    assert grid[0, :, 0, 0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0] and known.flatten().tolist() == [
        True,
        False,
    ]


def test_patches_that_reach_beyond_the_image_are_left_out():
    label = torch.zeros(1, 10, 9, dtype=torch.uint8)
    label[0, 8:] = 1
    label[0, :, 8:] = 1
    grid, _ = histograms(label, 2, (4, 4))
    assert grid.shape == (1, 8, 2, 2) and not grid[0, 1::2].any()


def test_k_means_finds_what_lies_apart_and_repeats_itself():
    g = torch.Generator().manual_seed(1)
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], dtype=torch.float64)
    points = torch.cat(
        [middle + 0.1 * torch.randn(30, 2, generator=g, dtype=torch.float64) for middle in middles]
    )
    found = k_means(points, 3, torch.Generator().manual_seed(2))
    assert torch.equal(found, k_means(points, 3, torch.Generator().manual_seed(2)))
    nearest = torch.cdist(middles, found).amin(dim=1)
    assert (nearest < 0.2).all()
    assert k_means(points[:1], 3, torch.Generator().manual_seed(0)).shape == (3, 2)


def test_the_patch_discriminator_has_the_published_layers():
    assert sum(p.numel() for p in PatchDiscriminator(50).parameters()) == 145_153


def test_adaptpatch_learns_modes_first_and_plays_then():
    method = make("adaptpatch", False, torch.float32, modes=4, patch=(16, 8), mode_only_share=0.5)
    method.modules["centroids"].values.copy_(torch.rand(4, 20))
    method.begin_iteration(0, 4, lambda: iter(()))
    assert set(method.step(batch())) == {"seg", "mode"}
    method.begin_iteration(2, 4, lambda: iter(()))
    terms = method.step(batch())
    assert set(terms) == {"seg", "mode", "adv", "disc", "patch_adv", "patch_disc"}
    assert method.modules["patch_head"].layers[0].weight.grad.abs().sum() > 0


def test_a_patch_is_of_its_nearest_mode():
    method = make("adaptpatch", False, modes=2, patch=(48, 32))
    # all four quadrants: class 0
    method.modules["centroids"].values.zero_()[1, 0::5] = 1.0
    labels = torch.zeros(2, 32, 48, dtype=torch.uint8)
    labels[1] = 255
    assert method.modes_of(labels).flatten().tolist() == [1, 255]


# SIBAN (our reconstruction)


def test_divergence_from_the_standard_normal_by_hand():
    mean = torch.tensor([1.0, 0.0], dtype=torch.float64)
    sigma = torch.tensor([1.0, math.e], dtype=torch.float64)
    assert divergence(mean, sigma).tolist() == pytest.approx([0.5, 2.19453], abs=1e-5)
    torch.manual_seed(0)
    assert gradcheck(
        divergence,
        (
            torch.randn(5, dtype=torch.float64, requires_grad=True),
            (torch.rand(5, dtype=torch.float64) + 0.1).requires_grad_(),
        ),
    )


def test_the_multiplier_follows_the_excess_and_stays_above_zero():
    assert float(next_beta(torch.tensor(0.01), torch.tensor(0.2), 0.01)) == pytest.approx(0.012)
    assert float(next_beta(torch.tensor(0.01), torch.tensor(-2.0), 0.01)) == 0.0


@pytest.mark.parametrize("head", ["aspp", "fused"])
def test_what_siban_ships_is_its_head_on_the_bottlenecks_mean(head):
    from fgda_cli.methods.registry import method_class
    from fgda_cli.models.segmenter import Segmenter

    torch.manual_seed(0)
    model = (
        Segmenter(5, "resnet18", width=8, multi_level=False, head=head, head_width=32)
        .double()
        .eval()
    )
    before = model(batch().target).logits
    cls = method_class("siban")
    method = cls(model, cls.Settings(name="siban", channels=64))
    for module in method.modules.values():
        module.double()
    assert method.width == min(64, model.feature_channels)
    with torch.no_grad():
        output = model(batch().target)
        shipped = (
            Segmenter(5, "resnet18", width=8, multi_level=False, head=head, head_width=32)
            .double()
            .eval()
        )
        shipped.load_state_dict(method.inference_state_dict())
        torch.testing.assert_close(
            shipped(batch().target).logits,
            method.modules["head"](method.modules["mean"](output.features)),
        )
        # nothing is lost at the start
        torch.testing.assert_close(shipped(batch().target).logits, before, rtol=1e-5, atol=1e-6)


def test_siban_draws_its_noise_again_alike():
    method = make("siban", False, torch.float32)
    output = method.forward(batch().target)
    first, _ = method.squeeze(output, 1)
    again, _ = method.squeeze(output, 1)
    method.iteration = 1
    other, _ = method.squeeze(output, 1)
    assert torch.equal(first.features, again.features) and not torch.equal(
        first.features, other.features
    )
