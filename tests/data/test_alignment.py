"""Labels that do not lie on their images."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from fgda_cli.data.alignment import border_rank
from fgda_cli.data.images import write_image
from fgda_cli.data.playground.looks import GAME, STREET
from fgda_cli.data.playground.scene import draw
from tests.helpers import fgda


def test_borders_on_edges_rank_high_and_elsewhere_by_chance():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 200
    image += np.random.default_rng(0).integers(0, 20, image.shape, dtype=np.uint8)
    right, off = np.zeros((2, 40, 60), np.uint8)
    right[:, 30:] = 1
    off[:, 10:] = 1
    assert border_rank(image, right) > 0.9 and 0.2 < border_rank(image, off) < 0.7
    assert math.isnan(border_rank(image, np.zeros((40, 60), np.uint8)))


def prepared(tmp_path):
    return fgda(
        *("prepare", "folder", "--images", tmp_path / "i", "--labels", tmp_path / "l"),
        *("--label-ids", "train", "--size", "64x32", "--name", "x", "--data-root", tmp_path / "d"),
    )


@pytest.mark.parametrize(
    ("flip", "said"),
    [(None, None), (0, "upside down"), (1, "mirrored"), (-1, "turned by 180 degrees")],
)
def test_labels_that_lie_otherwise_than_their_images_are_said(tmp_path, flip, said):
    """A frame that was read back from a GPU: everything would be trained on the wrong pixels."""
    for number in range(5):
        image, ids = draw(STREET, 0, number)
        write_image(tmp_path / f"i/{number}.png", image)
        write_image(tmp_path / f"l/{number}.png", ids if flip is None else cv2.flip(ids, flip))
    done = prepared(tmp_path)
    assert done.returncode == 0, done.stderr
    assert ("labels look" in done.stderr) == (said is not None), done.stderr
    assert said is None or f"labels look {said}: so turned" in done.stderr


@pytest.mark.parametrize("is_swapped", [False, True])
def test_images_written_in_bgr_order_are_said(tmp_path, is_swapped):
    for number in range(5):
        image, ids = draw(GAME, 0, number)
        write_image(tmp_path / f"i/{number}.png", image[..., ::-1] if is_swapped else image)
        write_image(tmp_path / f"l/{number}.png", ids)
    done = prepared(tmp_path)
    assert done.returncode == 0, done.stderr
    assert ("red and blue are swapped" in done.stderr) == is_swapped, done.stderr


@pytest.mark.parametrize("is_turned", [False, True])
def test_frames_that_are_upside_down_with_their_labels_are_said(tmp_path, is_turned):
    for number in range(5):
        image, ids = draw(GAME, 0, number)
        write_image(tmp_path / f"i/{number}.png", image[::-1] if is_turned else image)
        write_image(tmp_path / f"l/{number}.png", ids[::-1] if is_turned else ids)
    done = prepared(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "labels look" not in done.stderr
    assert ("the sky lies below the road" in done.stderr) == is_turned, done.stderr
