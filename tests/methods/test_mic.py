"""MIC: masks, held features and ignored rows by hand; which parts run and who learns from them."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import gradcheck

from fgda_cli import losses
from fgda_cli.data.classes import ClassSet
from fgda_cli.methods.mic import block_mask, distances, stay, thing_cells
from fgda_cli.methods.offline import OfflineData
from fgda_cli.runtime.random import generator_of
from fgda_cli.runtime.reporter import Reporter
from tests.helpers import batch, make

SMALL = {"mask_block": 8, "lambda_fd": 0.0}


def test_squares_whose_draw_is_above_the_ratio_stay():
    """[MIC], with draws .9, .1 over .71, .7 and blocks of 2: the left half of 4x4 stays."""
    mask = stay(torch.tensor([[0.9, 0.1], [0.71, 0.7]]), (4, 4), 0.7)
    assert mask.tolist() == [[True, True, False, False]] * 4


def test_masks_come_from_their_numbers_alone_and_keep_the_share_asked_for():
    masks = [
        block_mask((512, 1024), 64, 0.7, generator=generator_of(1, 2, place)) for place in range(50)
    ]
    assert torch.equal(masks[0], block_mask((512, 1024), 64, 0.7, generator=generator_of(1, 2, 0)))
    assert not torch.equal(masks[0], masks[1])
    assert torch.stack(masks).float().mean().item() == pytest.approx(0.3, abs=0.02)
    blocks = masks[0].view(8, 64, 16, 64).float().mean((1, 3))
    assert set(blocks.flatten().tolist()) == {0.0, 1.0}
    # smaller than a block
    assert block_mask((30, 50), 64, 0.7, generator=generator_of(1)).shape == (30, 50)


def test_cells_count_when_one_thing_holds_most_of_them():
    labels = torch.zeros(1, 4, 8, dtype=torch.uint8)
    # half of the first cell
    labels[0, :, 2:4] = 1
    # three quarters of the second
    labels[0, :, 4:7] = 1
    things = torch.tensor([False, True])
    assert thing_cells(labels, (1, 2), things, share=0.75).tolist() == [[[False, True]]]
    assert thing_cells(labels, (1, 2), torch.tensor([True, True]), share=0.5).tolist() == [
        [[True, True]]
    ]
    # ignored pixels belong to no class
    labels[0, :, 4:7] = 255
    assert not thing_cells(labels, (1, 2), things, share=0.25)[0, 0, 1]


def test_distance_by_hand_and_its_gradient():
    features = torch.tensor([3.0, 4.0], dtype=torch.float64).view(1, 2, 1, 1)
    assert distances(features, torch.zeros_like(features)).item() == 5.0
    same = torch.zeros(1, 2, 1, 1, requires_grad=True)
    distances(same, torch.zeros(1, 2, 1, 1)).sum().backward()
    assert torch.equal(same.grad, torch.zeros_like(same))
    torch.manual_seed(0)
    assert gradcheck(
        lambda x: distances(x, torch.zeros_like(x)),
        torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True),
    )


def offline(folder, names, encoder):
    samples = SimpleNamespace(
        labelled_items=[],
        source=SimpleNamespace(classes=ClassSet(names, ((0, 0, 0),) * len(names))),
    )
    reporter = Reporter(quiet=True, decisions=[])
    return OfflineData(
        samples, folder, torch.device("cpu"), reporter=reporter, imagenet_encoder=lambda: encoder
    )


NAMES = ("road", "car", "sky", "person", "bus")


def test_feature_distance_is_the_mean_over_the_sources_thing_cells(tmp_path):
    method = make("mic", False, lambda_fd=0.005)
    twin = copy.deepcopy(method.model.backbone).eval().requires_grad_(False)
    method.before_training(offline(tmp_path, NAMES, twin))
    assert (
        method.things.tolist() == [False, True, False, True, True]
        and "imagenet" not in method.modules
    )
    data = batch()
    labels = torch.zeros_like(data.labels)
    labels[0, :, :24] = 1
    data = data._replace(labels=labels)
    output = method.forward(data.source, is_target=False)
    # the network is its own twin
    assert method.feature_distance(output, data).item() == 0.0
    stages = (*output.stages[:-1], output.stages[-1] + 1.0)
    channels = output.stages[-1].shape[1]
    found = method.feature_distance(output._replace(stages=stages), data).item()
    assert found == pytest.approx(channels**0.5)
    _, terms = method.source_pass(data)
    assert set(terms) == {"seg", "feature_distance"}


@pytest.mark.parametrize(
    "names, encoder, why",
    [
        (("road", "sky"), torch.nn.Identity(), "no class is one of method.fd_things"),
        (NAMES, None, "no ImageNet weights"),
    ],
)
def test_feature_distance_that_cannot_be_is_said(tmp_path, names, encoder, why):
    method = make("mic", False, lambda_fd=0.005)
    data = offline(tmp_path, names, encoder)
    method.before_training(data)
    assert method.things is None and any(why in decision for decision in data.reporter.decisions)


def test_masked_images_show_the_mean_colour_where_nothing_is_to_be_seen():
    method = make("mic", False, **SMALL, mix_jitter=0.0, mix_blur_share=0.0)
    data = batch()
    found = method.masked(data.target)
    kept = torch.stack(
        [block_mask((32, 48), 8, 0.7, generator=generator_of(0, 5, 0, place)) for place in range(2)]
    )[:, None]
    torch.testing.assert_close(
        found, torch.where(kept, data.target.to(found), method.model.normalise.mean)
    )
    hidden = method.model.normalise(found)[~kept.expand_as(found)]
    assert hidden.abs().max() < 1e-9 and 0 < kept.float().mean() < 1


def test_the_weight_is_the_share_of_the_whole_batch():
    method = make("mic", False, **SMALL)
    probs = torch.full((2, 5, 2), 0.99)
    probs[0] = 0.5
    assert method.sure_share(probs).tolist() == [[[pytest.approx(0.5)]]] * 2


@pytest.mark.parametrize("name", ["mic", "dacs", "fgda-st", "sfst"])
def test_the_border_of_the_whole_image_weighs_nothing(name):
    """A border changes the loss, one of no pixels does not, and one of all leaves nothing of the
    teacher's labels.
    """
    method = make(name, False, **(SMALL if name == "mic" else {}), confidence=0.01)
    data = batch()
    border = torch.ones(2, 32, 48, dtype=torch.bool)
    border[:, :, :20] = False
    full = data._replace(target_border=torch.ones_like(border))
    plain, same, cut = (
        method.step(one)["self_training"]
        for one in (data, full, data._replace(target_border=border))
    )
    torch.testing.assert_close(plain, same)
    none = method.step(data._replace(target_border=torch.zeros_like(border)))
    assert not torch.allclose(cut, plain)
    # pasted pixels stay
    assert none["self_training"] == 0 if name == "sfst" else none["self_training"] < plain
    if name == "mic":
        assert none["masked"] == 0


def test_parts_can_be_left_out():
    data = batch()
    assert set(make("mic", False, **SMALL).step(data)) == {"seg", "self_training", "masked"}
    plain = make("mic", False, **SMALL, lambda_masked=0.0)
    assert set(plain.step(data)) == {"seg", "self_training"} and not plain.discriminators
    assert set(plain.modules) == {"teacher"}


def test_the_masked_loss_is_that_of_the_teachers_labels():
    method = make("mic", False, **SMALL)
    data = batch()
    terms = method.step(data)
    probs, guess = method.teach(data.target, (32, 48))
    logits = method.forward(method.masked(data.target)).logits
    expected = losses.segmentation_loss(
        logits, guess, weight=method.sure_share(probs).expand(guess.shape)
    )
    torch.testing.assert_close(terms["masked"], expected.to(terms["masked"]))
