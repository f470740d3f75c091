"""The confusion matrix against a plain count, and the published means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fgda_cli.metrics import (
    BoundaryCounts,
    Calibration,
    ConfusionMatrix,
    boundary,
    class_counts,
    interval,
    resampled_iou,
)

PAIRS = st.tuples(
    hnp.arrays(np.uint8, (6, 5), elements=st.sampled_from([0, 1, 2, 3, 255])),
    hnp.arrays(np.uint8, (6, 5), elements=st.integers(0, 3)),
)


@given(PAIRS)
@settings(max_examples=150, deadline=None)
def test_iou_equals_set_intersection_over_union(pair):
    truth, prediction = pair
    matrix = ConfusionMatrix(4)
    matrix.update(truth, prediction)
    valid = truth != 255
    for k, iou in enumerate(matrix.iou()):
        union = ((truth == k) | (prediction == k)) & valid
        hits = (truth == k) & (prediction == k)
        assert (
            np.isnan(iou)
            if not union.any()
            else iou == pytest.approx(100 * hits.sum() / union.sum())
        )
    assert matrix.counts.sum() == valid.sum()


@given(PAIRS, PAIRS)
@settings(max_examples=50, deadline=None)
def test_counting_in_parts_equals_counting_at_once(first, second):
    whole = ConfusionMatrix(4)
    one = ConfusionMatrix(4)
    two = ConfusionMatrix(4)
    for pair, part in ((first, one), (second, two)):
        whole.update(*pair)
        part.update(*pair)
    assert ((one + two).counts == whole.counts).all()


def test_counts_stay_exact_beyond_float_precision():
    matrix = ConfusionMatrix(2, np.array([[2**60, 0], [0, 0]], np.int64))
    matrix.update(np.zeros(1, np.uint8), np.zeros(1, np.uint8))
    assert matrix.counts[0, 0] == 2**60 + 1


def test_absent_classes_do_not_enter_the_mean_but_false_alarms_do():
    matrix = ConfusionMatrix(19)
    matrix.update(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 9]))
    # terrain is predicted where it is not: IoU 0
    assert matrix.miou() == pytest.approx((100 + 50 + 0) / 3)
    assert matrix.miou16() == pytest.approx(75)
    assert matrix.pixel_accuracy() == pytest.approx(75)


def test_sixteen_and_thirteen_classes_leave_out_the_published_ones():
    matrix = ConfusionMatrix(19, np.diag(np.arange(1, 20)).astype(np.int64))
    # wall taken for fence
    matrix.counts[3, 4] = 50
    assert matrix.miou13() == pytest.approx(100)
    assert matrix.miou16() < 100


@pytest.mark.parametrize("truth, prediction", [([19], [0]), ([0], [19]), ([0], [255])])
def test_ids_that_are_no_class_are_refused(truth, prediction):
    with pytest.raises(ValueError, match="holds id"):
        ConfusionMatrix(19).update(np.array(truth), np.array(prediction))


def test_nothing_counted_means_no_result():
    assert ConfusionMatrix(3).miou() is None and ConfusionMatrix(3).pixel_accuracy() is None


def test_a_boundary_is_what_an_erosion_takes_away():
    ids = np.full((7, 9), 1, np.uint8)
    ids[2:5, 3:8] = 0
    ids[0, 0] = 255
    found = boundary(ids, 2, 1)
    # class 0: all but its inside
    assert found[2:5, 3:8].tolist() == [[True] * 5, [True, False, False, False, True], [True] * 5]
    # the image's end is one
    assert found[0, 1:].all() and found[-1].all() and found[:, -1].all()
    assert not found[0, 0]  # no class
    # beside an ignored pixel
    assert found[1, 1]
    assert boundary(np.zeros((9, 9), np.uint8), 1, 2)[2:7, 2:7].sum() == 0


def test_boundary_iou_by_hand():
    """Squares of 6 and of 6 moved by 2, width 1: rings of 20 pixels that share 4 (their crossings
    and nothing else).
    """
    truth, moved = np.full((2, 20, 20), 1, np.uint8)
    truth[4:10, 4:10] = 0
    moved[6:12, 6:12] = 0
    counts = BoundaryCounts(2, share=1 / np.hypot(20, 20))
    counts.update(truth, moved)
    ring = {(r, c) for r in range(4, 10) for c in range(4, 10) if r in (4, 9) or c in (4, 9)}
    other = {(r + 2, c + 2) for r, c in ring}
    assert counts.counts[:, 0].tolist() == [len(ring & other), len(ring | other)]
    assert counts.iou()[0] == pytest.approx(100 * len(ring & other) / len(ring | other))
    same = BoundaryCounts(3)
    same.update(truth, truth)
    assert same.iou()[:2].tolist() == [100.0, 100.0] and np.isnan(same.iou()[2])


def test_boundary_iou_leaves_ignored_pixels_out():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 3, (2, 30, 40)).astype(np.uint8)
    truth[:, 20:] = 255
    other = prediction.copy()
    other[:, 20:] = 0
    found = []
    for ids in (prediction, other):
        counts = BoundaryCounts(3)
        counts.update(truth, ids)
        found.append(counts.counts)
    assert (found[0] == found[1]).all()


def test_calibration_error_by_hand():
    """Four pixels of confidence 0.95 of which one is right, six of 0.55 of which three are: (|1 -
    3.8| + |3 - 3.3|) / 10.
    """
    confidence = np.array([0.95] * 4 + [0.55] * 6 + [0.1])
    truth = np.array([1, 0, 0, 0] + [1, 1, 1, 0, 0, 0] + [255], np.uint8)
    calibration = Calibration(bins=10)
    calibration.update(truth, np.ones(11, np.uint8), confidence)
    assert calibration.counts[0].sum() == 10
    assert calibration.error() == pytest.approx(100 * (2.8 + 0.3) / 10)
    assert Calibration().error() is None
    edge = Calibration(bins=10)
    edge.update(np.ones(2, np.uint8), np.ones(2, np.uint8), np.array([0.1, 1.0]))
    # a bin holds its upper end
    assert edge.counts[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]


def by_class(matrices):
    return np.array([class_counts(matrix) for matrix in matrices])


def test_resampled_iou_draws_images_and_the_same_ones_for_the_same_seed():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 50, (40, 3, 3))
    total = ConfusionMatrix(3, counts.sum(0)).iou()
    matrices = counts
    counts = by_class(matrices)
    drawn = resampled_iou(counts, 500)
    for k in range(3):
        low, high = interval(drawn[:, k])
        assert low < total[k] < high and high - low < 15
    assert np.array_equal(drawn, resampled_iou(counts, 500))
    alike = np.repeat(counts[:1], 40, axis=0)
    # images that are alike have no spread
    assert np.ptp(resampled_iou(alike, 50), axis=0).max() < 1e-9
    absent = matrices.copy()
    absent[:, 2] = absent[:, :, 2] = 0
    assert np.isnan(resampled_iou(by_class(absent), 10)[:, 2]).all()
    assert interval(np.array([np.nan, np.nan])) is None
    assert interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Samples of 60 images from a known mean: about 95 % of the intervals hold it."""
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        right = rng.binomial(100, 0.7, 60)
        counts = np.zeros((60, 2, 2), np.int64)
        counts[:, 0, 0] = right
        counts[:, 0, 1] = 100 - right
        low, high = interval(resampled_iou(by_class(counts), 400, seed=trial)[:, 0])
        hits += low <= 70 <= high
    assert 0.88 <= hits / 200 <= 0.99
