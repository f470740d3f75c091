"""The confusion matrix against a plain count, and the published means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fgda_cli.metrics import ConfusionMatrix

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
        assert np.isnan(iou) if not union.any() else iou == pytest.approx(100 * hits.sum() / union.sum())
    assert matrix.counts.sum() == valid.sum()


@given(PAIRS, PAIRS)
@settings(max_examples=50, deadline=None)
def test_counting_in_parts_equals_counting_at_once(first, second):
    whole, one, two = ConfusionMatrix(4), ConfusionMatrix(4), ConfusionMatrix(4)
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
    assert matrix.miou() == pytest.approx((100 + 50 + 0) / 3)  # terrain is predicted where it is not: IoU 0
    assert matrix.miou16() == pytest.approx(75)
    assert matrix.pixel_accuracy() == pytest.approx(75)


def test_sixteen_and_thirteen_classes_leave_out_the_published_ones():
    matrix = ConfusionMatrix(19, np.diag(np.arange(1, 20)).astype(np.int64))
    matrix.counts[3, 4] = 50  # wall taken for fence
    assert matrix.miou13() == pytest.approx(100)
    assert matrix.miou16() < 100


@pytest.mark.parametrize("truth, prediction", [([19], [0]), ([0], [19]), ([0], [255])])
def test_ids_that_are_no_class_are_refused(truth, prediction):
    with pytest.raises(ValueError, match="holds id"):
        ConfusionMatrix(19).update(np.array(truth), np.array(prediction))


def test_nothing_counted_means_no_result():
    assert ConfusionMatrix(3).miou() is None and ConfusionMatrix(3).pixel_accuracy() is None
