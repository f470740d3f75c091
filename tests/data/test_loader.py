"""Samples are pure functions of their position; sampling follows class statistics; augmentation keeps labels aligned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fgda_cli.data import augment, sampling
from fgda_cli.data.loader import Augmentation, PairedSamples, Positions, batches
from fgda_cli.data.store import open_dataset

SIZES = ((64, 32), (64, 32))


def samples(data_root, **kwargs):
    source, target = open_dataset(data_root, "playground-game"), open_dataset(data_root, "playground-street")
    return PairedSamples(source, target, SIZES, seed=0, augmentation=Augmentation(True, (0.5, 0.5, 0.5, 0.2), 1.0), **kwargs)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_later_start_gives_the_same_batches_whatever_the_workers(data_root, workers):
    whole = list(batches(samples(data_root), Positions(0, 5, 2), 0, False))
    tail = list(batches(samples(data_root), Positions(3, 5, 2), workers, False))
    assert len(tail) == 2
    for expected, found in zip(whole[3:], tail, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_each_batch_evenly_and_in_order(processes):
    parts = [list(Positions(3, 6, 4, rank, processes)) for rank in range(processes)]
    assert [[p for part in parts for p in part[i]] for i in range(3)] == [[12, 13, 14, 15], [16, 17, 18, 19], [20, 21, 22, 23]]


def test_targets_are_seen_equally_often(data_root):
    paired = samples(data_root)
    paired.augmentation = Augmentation(flip=False)
    epoch = {paired[position][2].numpy().tobytes() for position in range(len(paired.target_items))}
    assert len(epoch) == len(paired.target_items)


def test_untrained_classes_become_ignored(data_root):
    labels = torch.cat([samples(data_root, untrained=(0, 2))[p][1].flatten() for p in range(4)])
    assert not torch.isin(labels, torch.tensor([0, 2], dtype=torch.uint8)).any() and (labels == 255).any()


def test_flip_moves_image_and_label_together():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    label = image[..., 0]
    for seed in range(6):
        flipped, moved = augment.random_flip(image, label, np.random.default_rng(seed))
        assert (flipped[..., 0] == moved).all()


def test_colour_jitter_equals_torchvision_for_its_linear_steps():
    from torchvision.transforms import functional as F

    class Fixed:
        draws = iter([1.2, 0.7, 1.4, 0.0])

        def uniform(self, low, high):
            return next(self.draws)

    image = np.random.default_rng(0).integers(60, 160, (8, 9, 3), dtype=np.uint8)
    found = augment.colour_jitter(image, (0.5, 0.5, 0.5, 0.0), Fixed())
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255
    expected = F.adjust_saturation(tensor, 1.4)
    expected = F.adjust_contrast(expected, 0.7)
    expected = F.adjust_brightness(expected, 1.2)
    assert np.abs(found.transpose(2, 0, 1) - 255 * expected.numpy()).max() < 3


def test_class_balanced_draws_rare_classes_as_often_as_common_ones():
    counts = np.zeros((10, 2))
    counts[:9, 0] = 100
    counts[9, 1] = 1
    draw, rng = sampling.class_balanced(counts), np.random.default_rng(0)
    drawn = [draw(rng) for _ in range(2000)]
    assert 0.45 < np.mean(np.array(drawn) == 9) < 0.55


def test_rare_class_follows_its_formula():
    counts = np.diag([980.0, 15.0, 5.0])
    share = np.array([0.98, 0.015, 0.005])
    expected = np.exp((1 - share) / 0.01) / np.exp((1 - share) / 0.01).sum()
    draw, rng = sampling.rare_class(counts), np.random.default_rng(0)
    found = np.bincount([draw(rng) for _ in range(4000)], minlength=3) / 4000
    np.testing.assert_allclose(found, expected, atol=0.03)
