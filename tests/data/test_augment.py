"""Crops of labelled images: drawn again where they show too much of one class, or too little of a
rare one.
"""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from fgda_cli.data import augment, tensor_augment


def test_crops_of_one_class_are_drawn_again():
    """mmsegmentation's cat_max_ratio: several classes, none with 75 % of the labels; one draw and
    ten more, the last is taken.
    """
    label = np.zeros((64, 256), np.uint8)
    label[:, 128:] = 1
    for seed in range(20):
        left, _ = augment.varied_box(label, (64, 64), np.random.default_rng(seed), most=0.75)
        plain = [
            augment.random_box((256, 64), (64, 64), rng)[0]
            for rng in [np.random.default_rng(seed)]
            for _ in range(11)
        ]
        good = [x for x in plain if 80 < x < 112]
        assert left == (good[0] if good else plain[-1])
    # ignored pixels are no second class
    label[:, 128:] = 255
    assert (
        augment.varied_box(label, (64, 64), np.random.default_rng(0), most=0.75)
        == [
            augment.random_box((256, 64), (64, 64), rng)
            for rng in [np.random.default_rng(0)]
            for _ in range(11)
        ][-1]
    )


def test_crops_for_a_rare_class_are_drawn_until_they_show_it():
    label = np.zeros((64, 256), np.uint8)
    label[20:30, 20:30] = 7
    shown = [
        (label[t : t + 40, x : x + 40] == 7).sum()
        for x, t in (
            augment.varied_box(label, (40, 40), np.random.default_rng(seed), wanted=7, least=50)
            for seed in range(40)
        )
    ]
    plain = [
        (label[t : t + 40, x : x + 40] == 7).sum()
        for x, t in (
            augment.varied_box(label, (40, 40), np.random.default_rng(seed), wanted=7)
            for seed in range(40)
        )
    ]
    assert sum(count > 50 for count in shown) > 2 * sum(count > 50 for count in plain) > 0
    box = augment.varied_box(label, (40, 40), np.random.default_rng(1))
    # as ever where nothing is asked for
    assert box == augment.random_box((256, 64), (40, 40), np.random.default_rng(1))


def published_jitter(pixel, factors, hue, order):
    """The same of one pixel of 0..1, by Python's own HSV."""
    for step in order:
        if step == 0:
            pixel = [min(1, max(0, value + factors[0] - 1)) for value in pixel]
        elif step == 1:
            pixel = [min(1, max(0, value * factors[1])) for value in pixel]
        else:
            h, s, v = colorsys.rgb_to_hsv(*pixel)
            s, h = (min(1, s * factors[2]), h) if step == 2 else (s, (h + hue) % 1)
            pixel = colorsys.hsv_to_rgb(h, s, v)
    return pixel


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_the_published_jitter_adds_brightness_and_multiplies_pixels(order):
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(3, 6, 7, generator=generator)
    image[:, 0, :2] = torch.tensor([[0.5, 0.0]] * 3)  # grey, black
    factors = [1.2, 0.8, 1.25]
    hue = -0.15
    made = tensor_augment.jitter_kornia(image * 255, [*factors, hue], order) / 255
    for y in range(6):
        for x in range(7):
            wanted = published_jitter(image[:, y, x].tolist(), factors, hue, order=order)
            assert made[:, y, x].tolist() == pytest.approx(wanted, abs=2e-6)


def test_the_published_jitter_changes_a_dark_image_twice_as_much():
    """Strength 0.2, mean 72: mean change 24 against 12.9 grey levels (PARITY2, row 24)."""
    image = torch.randint(
        22, 122, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    change = {}
    for kind in ("kornia", "torchvision"):
        draws = [torch.Generator().manual_seed(number) for number in range(300)]
        made = [
            tensor_augment.strong_view(
                image, draw, 0.2, jitter_share=1.0, blur_share=0, kind=kind
            ).float()
            for draw in draws
        ]
        change[kind] = float(torch.stack([(one - image).abs().mean() for one in made]).mean())
    assert 21 < change["kornia"] < 30 and 10 < change["torchvision"] < 16


def test_crops_reach_both_ends_of_an_image():
    rng = np.random.default_rng(0)
    boxes = {augment.random_box((12, 9), (8, 8), rng) for _ in range(400)}
    assert boxes == {(left, top) for left in range(5) for top in range(2)}
    assert augment.random_box((8, 4), (8, 8), rng) == (0, 0)
