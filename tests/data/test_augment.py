"""Crops of labelled images: drawn again where they show too much of one class, or too little of a rare one."""

from __future__ import annotations

import numpy as np

from fgda_cli.data import augment


def test_crops_of_one_class_are_drawn_again():
    """mmsegmentation's cat_max_ratio: more than one class, none with 75 % or more of the labels; ten draws, the last is taken."""
    label = np.zeros((64, 256), np.uint8)
    label[:, 128:] = 1
    for seed in range(20):
        left, _ = augment.varied_box(label, (64, 64), np.random.default_rng(seed), most=0.75)
        plain = [augment.random_box((256, 64), (64, 64), rng)[0] for rng in [np.random.default_rng(seed)] for _ in range(10)]
        good = [x for x in plain if 80 < x < 112]
        assert left == (good[0] if good else plain[-1])
    label[:, 128:] = 255  # ignored pixels are no second class
    assert (
        augment.varied_box(label, (64, 64), np.random.default_rng(0), most=0.75)
        == [augment.random_box((256, 64), (64, 64), rng) for rng in [np.random.default_rng(0)] for _ in range(10)][-1]
    )


def test_crops_for_a_rare_class_are_drawn_until_they_show_it():
    label = np.zeros((64, 256), np.uint8)
    label[20:30, 20:30] = 7
    shown = [
        (label[t : t + 40, x : x + 40] == 7).sum()
        for x, t in (augment.varied_box(label, (40, 40), np.random.default_rng(seed), wanted=7, least=50) for seed in range(40))
    ]
    plain = [
        (label[t : t + 40, x : x + 40] == 7).sum()
        for x, t in (augment.varied_box(label, (40, 40), np.random.default_rng(seed), wanted=7) for seed in range(40))
    ]
    assert sum(count > 50 for count in shown) > 2 * sum(count > 50 for count in plain) > 0
    box = augment.varied_box(label, (40, 40), np.random.default_rng(1))
    assert box == augment.random_box((256, 64), (40, 40), np.random.default_rng(1))  # as ever where nothing is asked for
