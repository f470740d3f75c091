"""Signals without labels: golden values, what they must not move, the verdict's words, and that
entropy is no judge.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from fgda_cli.data.store import open_dataset
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.runtime.devices import Precision
from fgda_cli.runtime.errors import FgdaError
from fgda_cli.signals.observe import (
    VIEWS,
    Frames,
    Observed,
    density,
    different_views,
    feature_distance,
    frames_of,
    look_at_source,
    normalised_entropy,
    observe,
    views,
)
from fgda_cli.signals.score import (
    COLLAPSED,
    WEIGHTS,
    changes,
    classes_in_words,
    in_words,
    score,
    verdict_on,
)

CPU = Precision("fp32", torch.device("cpu"))
NAMES = ("road", "sky", "car", "pole")


def seen(
    steady=0.6,
    diversity=0.8,
    edges=0.6,
    information=0.5,
    distance=1.0,
    shares=(0.5, 0.3, 0.1, 0.1),
    by_class=(0.9, 0.9, 0.4, 0.2),
):
    signals = {
        "diversity": diversity,
        "edges": edges,
        "information": information,
        "bn_distance": distance,
        **{f"steady_{view}": steady for view in VIEWS},
    }
    return Observed(signals, np.array(shares), np.array(by_class))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Segmenter(4, "resnet18", width=8, multi_level=False)


def pictures(count=3, size=(32, 64)):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def test_entropy_of_shares_is_one_for_equal_and_zero_for_one():
    assert normalised_entropy(np.full(4, 0.25)) == pytest.approx(1.0)
    assert normalised_entropy(np.array([1.0, 0, 0, 0])) == pytest.approx(0.0, abs=1e-9)


def test_soft_neighbourhood_density_by_hand():
    """[SND]: three orthogonal features have two neighbours alike far: entropy log 2 each."""
    assert density(torch.eye(3)) == pytest.approx(math.log(2))
    pair = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    p = torch.softmax(torch.tensor([1.0, 0.0]) / 0.05, 0)
    near = float(-(p * p.log()).sum())
    assert density(pair) == pytest.approx((2 * near + math.log(2)) / 3, abs=1e-4)


def test_feature_distance_is_in_standard_deviations():
    one = np.array([[0.0, 1.0], [1.0, 4.0]])
    assert feature_distance(one, one) == 0
    assert feature_distance(one, one + [[3.0, 6.0], [0.0, 0.0]]) == pytest.approx(3.0)


def test_looking_changes_nothing_and_gives_the_same_twice(model):
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = observe(model, Frames(pictures()), CPU)
    assert torch.equal(state, torch.get_rng_state()) and model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert first.to_json() == observe(model, Frames(pictures()), CPU).to_json()
    assert not any(module._forward_pre_hooks for module in model.modules())
    again = Observed.from_json(first.to_json())
    assert again.signals == first.signals and np.array_equal(again.shares, first.shares)


def test_a_network_of_one_class_is_steady_in_that_class_alone(model):
    with torch.no_grad():
        for conv in model.head.convs:
            conv.weight.zero_()
            conv.bias.zero_()
        model.head.convs[0].bias[1] = 9.0
    found = observe(model, Frames(pictures()), CPU)
    assert found.shares.tolist() == [0, 1, 0, 0] and found.steady.tolist() == [0, 1, 0, 0]
    assert found.signals["steady_mirror"] == 0.25 and found.signals["diversity"] == pytest.approx(
        0, abs=1e-9
    )
    assert found.signals["entropy"] < 0.02 and found.signals["edges"] == 0.5


def test_a_mirrored_view_is_turned_back():
    """A network without position sees a mirrored image as the mirrored map: it agrees wholly."""

    class Colours(torch.nn.Module):
        num_classes = 2
        align_corners = False
        input_rule = None

        def forward(self, images):
            from fgda_cli.models.segmenter import Output

            x = images.float()[:, :1] - 128
            logits = torch.cat([x, -x], 1)
            return Output(logits, None, logits, aux_features=logits, stages=(logits,))

    found = observe(Colours(), Frames(pictures(2)), CPU)
    assert found.signals["steady_mirror"] == 1.0 and found.signals["bn_distance"] == 0.0


def test_batch_norm_distance_is_zero_on_its_own_statistics_and_grows(model):
    frames = Frames(pictures(4))
    far = observe(model, frames, CPU).signals["bn_distance"]
    model.set_batch_norm("train")
    batch = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in frames.images])
    with torch.no_grad(), _momentum_one(model):
        model.train()(batch)
    assert observe(model, frames, CPU).signals["bn_distance"] < 0.02 < far


def _momentum_one(model):
    from fgda_cli.models.normalisation import batch_norms
    from fgda_cli.models.segmenter import _momentum

    return _momentum(batch_norms(model), 1.0)


def test_views_are_mild_and_of_the_asked_size():
    image = pictures(1, (40, 60))[0]
    found = dict(views(image))
    assert torch.equal(found["mirror"].flip(-1), torch.from_numpy(image).permute(2, 0, 1))
    assert found["scale"].shape == (3, 48, 72) and found["light"].shape == (3, 40, 60)


def test_the_score_is_the_documented_rule():
    before = seen()
    after = seen(steady=0.66, distance=1.2, edges=0.62)
    found = changes(before, after)
    assert found == {
        "edges": pytest.approx(0.02),
        "steady_scale": pytest.approx(0.06),
        "bn_distance": pytest.approx(0.2),
    }
    expected = (
        WEIGHTS["edges"] * 0.02 + WEIGHTS["steady_scale"] * 0.06 + WEIGHTS["bn_distance"] * 0.2
    )
    assert score(before, after) == pytest.approx(expected)
    assert score(before, before) == 0


def test_a_collapsed_network_is_harmful_however_sure_and_steady_it_is():
    collapsed = seen(steady=0.9, diversity=0.4, information=0.6, shares=(0.99, 0.01, 0, 0))
    verdict = verdict_on(seen(), collapsed, NAMES)
    assert (
        verdict.kind == "collapsed or harmful"
        and verdict.score == COLLAPSED
        and verdict.confidence == 1.0
    )
    assert (
        verdict.words[0] == "collapsed: road takes 99 % of the pixels"
        and verdict.in_words() == "collapsed"
    )
    assert verdict.classes["vanished"] == ["sky", "car", "pole"]


def test_entropy_is_in_no_verdict_and_agreement_far_from_batch_norm_counts_less():
    """Self-training makes predictions steady, whether they are right or not: `cbst` at forty times
    the rate agreed by 0.11 more, 4 deviations away, and lost 3.5 points.
    """
    assert score(seen(), seen(information=0.9)) == 0
    near = verdict_on(seen(), seen(steady=0.71), NAMES)
    far = verdict_on(seen(), seen(steady=0.71, distance=5.0), NAMES)
    off_edges = verdict_on(seen(), seen(steady=0.71, edges=0.54), NAMES)
    assert near.kind == "helped" and far.kind != "helped" and off_edges.kind != "helped"


def test_verdicts_and_how_sure_they_are():
    better, worse, unclear = (
        verdict_on(seen(), seen(steady=value), NAMES) for value in (0.68, 0.52, 0.63)
    )
    assert better.kind == "helped" and 0.7 <= better.confidence < 1
    assert worse.kind == "collapsed or harmful" and 0.7 <= worse.confidence < 1
    assert (
        unclear.kind == "cannot tell"
        and 0.5 < unclear.confidence < 0.7
        and "cannot tell" in unclear.in_words()
    )
    assert verdict_on(seen(), seen(steady=0.75), NAMES).confidence > better.confidence
    # however large the score is
    assert verdict_on(seen(), seen(steady=0.99), NAMES).confidence == 0.95
    same = verdict_on(seen(), seen(), NAMES)
    assert same.kind == "no clear change" and same.score == 0 and 0.7 < same.confidence < 0.8
    assert "sure that mIoU moved by less than 3 points" in same.in_words()
    assert (
        better.to_json()["verdict"] == "helped" and "points of mIoU to expect" in better.in_words()
    )


def test_classes_are_named_that_vanish_or_move_most():
    after = seen(shares=(0.25, 0.3, 0.0, 0.45), by_class=(0.7, 0.9, 0.0, 0.2))
    assert classes_in_words(seen(), after, NAMES) == {
        "vanished": ["car"],
        "moved": ["pole", "road"],
    }
    vanished, moved = verdict_on(seen(), after, NAMES).words
    assert vanished == "vanished, look whether rightly: car (10.0 % of the pixels, now 0.0)"
    assert moved.startswith("grew or shrank most, look whether rightly: pole (10.0 % of")
    (moved,) = verdict_on(seen(), seen(shares=(0.44, 0.3, 0.1, 0.16)), NAMES).words
    assert "road (50.0 % of the pixels, now 44.0), pole" in moved


def test_a_verdict_that_cannot_tell_carries_no_certainty():
    said = in_words({"verdict": "cannot tell", "score": 1.9, "confidence": 0.72, "spread": 3.2})
    assert said == "cannot tell (+1.9 points of mIoU to expect, give or take 3.2)"


def test_frames_are_spread_evenly_and_sized_by_the_rule(data_root):
    dataset = open_dataset(data_root, "playground-game")
    frames = frames_of(dataset, "train", lambda width, height: (32, 16), count=4, labelled=True)
    assert (
        len(frames.images) == 4
        and frames.images[0].shape == (16, 32, 3)
        and frames.labels[0].shape == (16, 32)
    )
    assert len(frames_of(dataset, "train", (32, 16), count=99).images) == 10


def test_what_is_known_of_the_source(model, data_root):
    dataset = open_dataset(data_root, "playground-game")
    frames = frames_of(dataset, "train", (64, 32), count=3, labelled=True)
    frames = Frames(
        frames.images, [np.where(label < 4, label, 255).astype(np.uint8) for label in frames.labels]
    )
    miou, features = look_at_source(model, frames, CPU)
    assert (
        0 <= miou <= 100
        and features.shape == (2, model.feature_channels)
        and (features[1] >= 0).all()
    )


def test_certainty_follows_the_number_of_different_frames():
    """Case 44: one image, or one image four times, was "helped, 99 % sure"."""
    names = ("road", "sky", "car")
    shares = np.array([0.5, 0.3, 0.2])
    signals = {"diversity": 0.9, "edges": 0.6, "steady_scale": 0.5, "bn_distance": 1.0}
    before = Observed(signals, shares, shares, different=40)
    after = {
        n: Observed(signals | {"steady_scale": 0.6}, shares, shares, different=n)
        for n in (1, 4, 40)
    }
    verdicts = {n: verdict_on(before, one, names) for n, one in after.items()}
    assert (
        verdicts[40].confidence > 0.9
        and verdicts[40].confidence > verdicts[4].confidence > verdicts[1].confidence
    )
    assert verdicts[1].confidence < 0.7 and verdicts[4].confidence < 0.85
    assert verdicts[40].kind == "helped" and verdicts[1].kind == "cannot tell"
    # not "no change"
    assert (
        verdict_on(before, Observed(signals, shares, shares, different=1), names).kind
        == "cannot tell"
    )
    assert (
        verdicts[1].words[0].startswith("only 1 different frame looked at")
        and not verdicts[40].words
    )


def test_frames_that_are_the_same_count_once(data_root):
    frames = frames_of(open_dataset(data_root, "playground-street"), "train", (64, 32), count=4)
    torch.manual_seed(0)
    model = Segmenter(19, "resnet18", width=8, multi_level=False).eval()
    cpu = Precision("fp32", torch.device("cpu"))
    assert observe(model, frames, cpu).different == 4
    assert observe(model, Frames([frames.images[0]] * 4), cpu).different == 1
    assert Observed.from_json(observe(model, frames, cpu).to_json()).different == 4


@pytest.mark.parametrize("factor", [0.3, 1.8, 5.0])
def test_scaled_logits_change_no_verdict(model, factor):
    """A network whose logits are multiplied decides the same: no signal moves, however sure it says
    to be.
    """
    frames = Frames(pictures(4))
    before = observe(model, frames, CPU)
    with torch.no_grad():
        for conv in model.head.convs:
            conv.weight *= factor
            conv.bias *= factor
    after = observe(model, frames, CPU)
    assert after.signals["information"] == pytest.approx(before.signals["information"], abs=1e-5)
    assert score(before, after) == pytest.approx(0, abs=1e-3)
    assert verdict_on(before, after, NAMES).classes == {
        "vanished": [],
        "moved": [],
    }


def test_logits_that_are_not_finite_are_refused(model):
    with torch.no_grad():
        model.head.convs[0].bias[1] = float("nan")
    with pytest.raises(FgdaError, match="not finite|NaN"):
        observe(model, Frames(pictures(1)), CPU)


def test_frames_that_look_alike_count_once():
    """A frame and its copy with noise tell no more than the frame."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(
        rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC
    )
    other = cv2.resize(
        rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC
    )
    noisy = np.clip(smooth.astype(int) + rng.integers(-2, 3, smooth.shape), 0, 255).astype(np.uint8)
    assert different_views([smooth, noisy, smooth.copy()]) == 1
    assert different_views([smooth, other]) == 2
