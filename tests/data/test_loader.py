"""Samples are pure functions of their position; sampling follows class statistics; augmentation
keeps labels aligned.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fgda_cli.data import augment, sampling
from fgda_cli.data.loader import PairedSamples, Positions, batches
from fgda_cli.data.store import open_dataset
from tests.helpers import SIZE, data_settings, samples


@pytest.mark.parametrize("workers", [0, 2])
def test_a_later_start_gives_the_same_batches_whatever_the_workers(data_root, workers):
    whole = list(batches(samples(data_root), Positions(0, 5, 2), 0, pin=False))
    tail = list(batches(samples(data_root), Positions(3, 5, 2), workers, pin=False))
    assert len(tail) == 2
    for expected, found in zip(whole[3:], tail, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected[:3], found[:3], strict=True))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_each_batch_evenly_and_in_order(processes):
    parts = [list(Positions(3, 6, 4, rank=rank, processes=processes)) for rank in range(processes)]
    assert [[p for part in parts for p in part[i]] for i in range(3)] == [
        [12, 13, 14, 15],
        [16, 17, 18, 19],
        [20, 21, 22, 23],
    ]


def test_targets_are_seen_equally_often(data_root):
    paired = samples(data_root, data_settings(flip=False))
    epoch = {
        paired[position]["target"].numpy().tobytes() for position in range(len(paired.target_items))
    }
    assert len(epoch) == len(paired.target_items)


def test_untrained_classes_become_ignored(data_root):
    labels = torch.cat(
        [samples(data_root, untrained=(0, 2))[p]["labels"].flatten() for p in range(4)]
    )
    assert (
        not torch.isin(labels, torch.tensor([0, 2], dtype=torch.uint8)).any()
        and (labels == 255).any()
    )


def test_flip_moves_image_and_label_together():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    label = image[..., 0]
    for seed in range(6):
        flipped, moved = augment.random_flip(np.random.default_rng(seed), image, label)
        assert (flipped[..., 0] == moved).all()


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_colour_jitter_equals_torchvisions_whatever_the_order(order):
    from torchvision.transforms import functional as F

    class Fixed:
        draws = iter([1.2, 0.7, 1.4, 0.1])

        def uniform(self, low, high):
            return next(self.draws)

        def permutation(self, count):
            return np.array(order)

    image = np.random.default_rng(0).integers(60, 160, (8, 9, 3), dtype=np.uint8)
    found = augment.colour_jitter(image, (0.5, 0.5, 0.5, 0.2), Fixed())
    expected = torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255
    steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for step, factor in ((order_step, (1.2, 0.7, 1.4, 0.1)[order_step]) for order_step in order):
        expected = steps[step](expected, factor)
    difference = np.abs(found.transpose(2, 0, 1) - 255 * expected.numpy())
    # hue in steps of 2 degrees, and uint8 in between
    assert difference.mean() < 2 and difference.max() < 8


def test_class_balanced_weighs_classes_as_the_public_code_does():
    counts = np.diag([970.0, 25.0, 5.0])
    expected = 1 / np.log(1.01 + np.array([0.97, 0.025, 0.005]))
    draw = sampling.class_balanced(counts)
    rng = np.random.default_rng(0)
    found = np.bincount([draw(rng) for _ in range(4000)], minlength=3) / 4000
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.03)


def test_rare_class_takes_images_that_show_enough_of_the_class_scaled_to_their_size():
    counts = np.array([[900.0, 40.0], [900.0, 10.0], [900.0, 0.0]])
    # a hundredth of the published area: 3000 pixels become 30
    small = np.full(3, 1914 * 1052 / 100)
    draw = sampling.rare_class(counts, min_pixels=3000, image_pixels=small)
    rng = np.random.default_rng(0)
    assert 1 not in {draw(rng) for _ in range(500)}
    # no image shows so much: all that show it
    nowhere = sampling.rare_class(counts, min_pixels=30000, image_pixels=small)
    assert {nowhere(rng) for _ in range(500)} == {0, 1}


def test_rare_class_follows_its_formula():
    counts = np.diag([980.0, 15.0, 5.0])
    share = np.array([0.98, 0.015, 0.005])
    expected = np.exp((1 - share) / 0.01) / np.exp((1 - share) / 0.01).sum()
    draw = sampling.rare_class(counts, min_pixels=0)
    rng = np.random.default_rng(0)
    found = np.bincount([draw(rng) for _ in range(4000)], minlength=3) / 4000
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_class_weights_follow_their_formula_and_are_one_on_average(data_root):
    paired = samples(data_root)
    totals = np.sum([item.counts for item in paired.source_items], axis=0)
    present = np.flatnonzero(totals)
    shares = totals[present] / totals.sum()
    weights = paired.class_weights(0.5).numpy()
    assert (weights[present] * shares).sum() == pytest.approx(1)
    assert weights[present[0]] / weights[present[1]] == pytest.approx(
        (shares[1] / shares[0]) ** 0.5
    )
    assert weights[255] == 1 and paired.class_weights(0.0) is None
    inverse = paired.class_weights(1.0).numpy()
    assert inverse[present] * shares == pytest.approx(np.full(len(present), 1 / len(present)))
    untrained = samples(data_root, untrained=(int(present[0]),)).class_weights(0.5).numpy()
    assert untrained[present[0]] == 1 and (
        untrained[present[1:]] * shares[1:] / shares[1:].sum()
    ).sum() == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_the_border_goes_with_crop_and_mirror(data_root, seed):
    """Images that are white in the border and black inside: the mask is where the crop shows
    black.
    """
    target = open_dataset(data_root, "playground-street")
    height = 32
    width = 64
    border = (0.1, 0.25, 0.05, 0.2)
    inside = np.zeros((height, width), bool)
    inside[
        int(0.1 * height) : height - int(0.25 * height),
        int(0.05 * width) : width - int(0.2 * width),
    ] = True
    picture = np.where(inside[..., None], 0, 255).astype(np.uint8).repeat(3, 2)
    settings = data_settings(target=SIZE | {"crop": (40, 24), "border": border})
    samples = PairedSamples(None, target, settings, seed=seed, reads_border=True)
    samples.target = replace_image(target, picture)
    for position in range(6):
        found = samples[position]
        assert torch.equal(found["target_border"], found["target"][0] == 0)
    assert "target_border" not in PairedSamples(None, target, settings, seed=seed)[0]


def replace_image(dataset, picture):
    """The data set, whose every image is this one."""

    class Same:
        resample = dataset.resample

        def image(self, item):
            return picture

    return Same()
