"""Windows: equal to the whole image when one covers it, to a plain blend otherwise, in the memory
of one window.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fgda_cli.data.images import write_image
from fgda_cli.inference.sliding import SlidingWindow, sliding_logits
from fgda_cli.losses import upsample
from fgda_cli.models.segmenter import Segmenter
from tests.helpers import fgda


def ramp(images):
    """Stands for a network of stride 8 that reads off each point's own colour: `[B,3,H,W]` ->
    `[B,3,H/8,W/8]`.
    """
    height, width = images.shape[-2:]
    size = (-(-height // 8), -(-width // 8))
    return torch.nn.functional.interpolate(
        images.double(), size=size, mode="bilinear", align_corners=True
    )


def test_a_window_that_covers_the_image_is_one_forward():
    torch.manual_seed(0)
    net = Segmenter(5, "resnet18", width=8).eval()
    images = torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8)
    with torch.no_grad():
        whole = net(images).logits
        for size in ((56, 40), (100, 40), (500, 500)):
            assert torch.equal(
                sliding_logits(lambda x: net(x).logits, images, SlidingWindow(size)), whole
            )


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("window", [(64, 48), (33, 200), (200, 41), (70, 70)])
def test_a_linear_picture_comes_back_whole(window, overlap):
    """Each point's own value, whatever windows it is seen in: no seams, no shift."""
    y, x = torch.meshgrid(torch.arange(150.0), torch.arange(190.0), indexing="ij")
    images = torch.stack([x, y, x + 2 * y])[None]
    found = sliding_logits(ramp, images, SlidingWindow(window, overlap))
    torch.testing.assert_close(upsample(found, (150, 190)), images.double(), rtol=1e-6, atol=1e-5)


def test_blending_by_hand():
    """Two windows of constant logits: in the overlap the mean with weights that fall to the
    border.
    """
    calls = iter((0.0, 1.0))

    def constant(images):
        return torch.full(
            (1, 1, images.shape[2], images.shape[3]), next(calls), dtype=torch.float64
        )

    found = sliding_logits(constant, torch.zeros(1, 3, 4, 6), SlidingWindow((4, 4), 0.5))
    # columns 2 and 3 lie in both: local places 2, 3 of the first (weights 2, 1) and 0, 1 of the
    # second (1, 2)
    assert found[0, 0, 0].tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])


@given(st.integers(1, 400), st.integers(1, 120), st.floats(0, 0.9))
def test_windows_cover_a_side_and_overlap_as_asked(length, window, overlap):
    starts = SlidingWindow((window, window), overlap).starts(length, window)
    assert starts[0] == 0 and starts[-1] == max(0, length - window)
    steps = np.diff(starts)
    assert (steps >= 0).all() and (steps <= max(1, window * (1 - overlap)) + 1).all()


def test_no_window_is_larger_than_asked():
    seen = []

    def forward(images):
        seen.append(images.shape[-2:])
        return ramp(images)

    sliding_logits(forward, torch.zeros(1, 3, 300, 500), SlidingWindow((128, 96), 0.25))
    assert len(seen) > 12 and set(seen) == {torch.Size([96, 128])}


def test_the_commands_slide(trained, data_root, tmp_path):
    write_image(
        tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    )
    results = {}
    ways = {
        "whole": (),
        "covered": ("--sliding", "64x32"),
        "scaled": ("--scale", "2"),
        "slid": ("--scale", "2", "--sliding", "64x32", "--overlap", "0.5"),
    }
    for name, more in ways.items():
        done = fgda(
            "predict", trained, tmp_path / "a.png", "--out", tmp_path / name, "--save", "ids", *more
        )
        assert done.returncode == 0, done.stderr
        results[name] = (tmp_path / name / "a_ids.png").read_bytes()
    assert results["whole"] == results["covered"] and results["slid"] != results["scaled"]
    scores = [
        json.loads(fgda("evaluate", trained, "--data-root", data_root, "--json", *more).stdout)[
            "confusion"
        ]
        for more in ((), ("--sliding", "64x32"))
    ]
    assert scores[0] == scores[1]
    wrong = fgda("predict", trained, tmp_path / "a.png", "--out", tmp_path / "x", "--sliding", "64")
    assert wrong.returncode == 2 and "--sliding 64: write it as WIDTHxHEIGHT" in wrong.stderr


@pytest.mark.parametrize("overlap", [0.0, 0.3])
@pytest.mark.parametrize("window", [(64, 48), (72, 52), (40, 200)])
def test_maps_that_lie_border_on_border(window, overlap):
    """align_corners False: away from the image's border, where it is held, a linear picture comes
    back whole.
    """
    y, x = torch.meshgrid(torch.arange(144.0), torch.arange(192.0), indexing="ij")
    images = torch.stack([x, y, x + 2 * y])[None].double()

    # a network of stride 4 whose points lie in the middle of their pixels
    def means(part):
        return torch.nn.functional.interpolate(
            part, size=tuple(s // 4 for s in part.shape[-2:]), mode="area"
        )

    found = sliding_logits(means, images, SlidingWindow(window, overlap), align_corners=False)
    inner = upsample(found, (144, 192), align_corners=False)[..., 2:-2, 2:-2]
    torch.testing.assert_close(inner, images[..., 2:-2, 2:-2], rtol=0, atol=1.0)
    assert torch.isfinite(found).all() and found.shape[-2:] == (36, 48)


def test_windows_that_only_touch_leave_no_hole():
    images = torch.rand(1, 3, 40, 128)
    found = sliding_logits(ramp, images, SlidingWindow((64, 40), 0.0))
    assert torch.isfinite(found).all()


@given(st.integers(3, 12), st.integers(3, 12), st.sampled_from([0.0, 0.5]), st.booleans())
def test_the_plain_mean_is_that_of_the_published_evaluations(rows, columns, overlap, align):
    """Windows by even steps, the last moved back to the end; logits enlarged, added up, divided by
    how many there were.
    """
    height = 8 * rows
    width = 8 * columns
    side = 32
    step = 32 if overlap == 0 else 16
    images = torch.rand(
        1, 3, height, width, generator=torch.Generator().manual_seed(rows * 31 + columns)
    ).double()

    def forward(part):
        return torch.nn.functional.avg_pool2d(part, 8)

    total = torch.zeros(1, 3, height, width).double()
    counts = torch.zeros(height, width).double()
    for y in range(max(height - side + step - 1, 0) // step + 1):
        for x in range(max(width - side + step - 1, 0) // step + 1):
            bottom = min(y * step + side, height)
            right = min(x * step + side, width)
            place = (slice(max(bottom - side, 0), bottom), slice(max(right - side, 0), right))
            part = images[..., place[0], place[1]]
            total[..., place[0], place[1]] += upsample(forward(part), part.shape[-2:], align)
            counts[place] += 1
    found = sliding_logits(
        forward, images, SlidingWindow((side, side), overlap, "mean"), align_corners=align
    )
    if found.shape == total.shape:
        torch.testing.assert_close(found, total / counts)
    # one window covers the image
    else:
        assert (height, width) == (min(height, side), min(width, side))
