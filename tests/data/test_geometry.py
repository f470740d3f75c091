"""Resizing keeps labels on their images; one rule says at which size an image enters the
network.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fgda_cli.data.geometry import InputRule, resize_ids, resize_image

side = st.integers(1, 90)


@given(side, side, side, side, st.integers(0, 99))
def test_ids_are_resized_as_pillows_nearest(width, height, new_width, new_height, seed):
    ids = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    expected = np.asarray(
        Image.fromarray(ids).resize((new_width, new_height), Image.Resampling.NEAREST)
    )
    assert (resize_ids(ids, (new_width, new_height)) == expected).all()


@pytest.mark.parametrize("factor", [2, 3, 4, 6, 1.5])
def test_edges_of_image_and_label_coincide(factor):
    """Parity 17: plain INTER_NEAREST puts the label half a pixel off."""
    large = 1200
    edges = range(100, large - 100, 37)
    small = round(large / factor)
    found = {"ours": [], "opencv": []}
    for edge in edges:
        image = np.zeros((1, large, 3), np.uint8)
        image[:, edge:] = 255
        shrunk = resize_image(image, (small, 1))[0, :, 0].astype(float) / 255
        # of the image's edge, with the share of the pixel it cuts
        where = small - shrunk.sum()
        for name, label in (
            ("ours", resize_ids(image[..., 0], (small, 1))),
            ("opencv", cv2.resize(image[..., 0], (small, 1), interpolation=cv2.INTER_NEAREST)),
        ):
            found[name].append(int((label[0] == 0).sum()) - where)
    # Of an even number of pixels none is the middle one: half a source pixel is the least.
    assert abs(np.mean(found["ours"])) < 0.5 / factor + 0.03
    if factor > 2:
        # the test can see the fault
        assert abs(np.mean(found["opencv"])) > 0.5 / factor + 0.1


@pytest.mark.parametrize("size", [(31, 17), (200, 90)])
def test_bicubic_is_pillows(size):
    image = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    assert (resize_image(image, size, "bicubic") == expected).all()


@pytest.mark.parametrize(
    "rule, image, expected",
    [
        (InputRule((1024, 512)), (2048, 1024), (1024, 512)),
        (InputRule((1024, 512)), (2000, 1024), (1024, 512)),  # within 5 %
        (InputRule((2048, 512), within=True), (1000, 1000), (512, 512)),
        (InputRule((2048, 512), within=True), (2000, 100), (2048, 102)),
        # squeezed as in training
        (InputRule((256, 192), trained_on=(960, 540)), (960, 540), (256, 192)),
        (InputRule((256, 192), trained_on=(960, 540)), (640, 480), (256, 192)),
        (InputRule((1024, 512), squeeze_all=True), (640, 480), (1024, 512)),
        # some rows of a frame, the whole frame, and an image of another shape
        (InputRule((416, 128), rows=(29, 70)), (1242, 375), (416, 128)),
        (InputRule((416, 128), rows=(29, 70)), (1242, 915), (416, 312)),
        (InputRule((416, 128), rows=(29, 70)), (640, 640), (232, 232)),
        (InputRule((256, 192), trained_on=(960, 540), rows=(0, 75)), (960, 720), (256, 192)),
        (InputRule((256, 128), trained_on=(960, 540), rows=(0, 75)), (960, 720), (256, 168)),
    ],
)
def test_images_of_the_trained_aspects_enter_at_the_size(rule, image, expected):
    assert rule(*image) == expected


def test_other_images_keep_their_aspect_and_the_number_of_pixels():
    width, height = InputRule((1024, 512))(3000, 4000)
    assert abs(width * height / (1024 * 512) - 1) < 0.05 and abs(width / height - 0.75) < 0.02
    assert width % 8 == height % 8 == 0


@given(st.integers(1, 20000), st.integers(1, 20000))
def test_every_image_gets_a_size_that_a_network_takes(width, height):
    found = InputRule((1024, 512))(width, height)
    assert all(64 <= value <= 8192 for value in found)


def test_the_rule_survives_its_json():
    for rule in (
        InputRule((64, 32)),
        InputRule((64, 32), (40, 30), "bicubic", squeeze_all=True),
        InputRule((64, 32), rows=(20.0, 90.0)),
    ):
        assert InputRule.from_json(rule.to_json()) == rule
    for broken in (
        {},
        {"size": [0, 5]},
        {"size": [10**6, 5]},
        {"size": [64, 32], "resample": "x"},
        {"size": [64, 32], "more": 1},
        {"size": [64, 32], "rows": [70, 20]},
    ):
        with pytest.raises(ValueError):
            InputRule.from_json(broken)
