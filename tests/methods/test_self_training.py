"""CBST's thresholds, FGDA-ST's teacher and mixing, CLAN's summed head: worked by hand."""

from __future__ import annotations

import pytest
import torch

from fgda_cli.methods import cbst
from tests.helpers import batch, make


def cbst_over(top: dict[int, tuple[float, ...]]):
    """CBST whose network predicts these confidences, class by class, on one row of pixels."""
    method = make("cbst", False, torch.float32)
    pixels = [(k, c) for k, confidences in top.items() for c in confidences]
    probs = torch.zeros(1, 5, 1, len(pixels), dtype=torch.float64)
    for place, (k, confidence) in enumerate(pixels):
        probs[0, :, 0, place] = (1 - confidence) / 4
        probs[0, k, 0, place] = confidence
    method.predict = lambda images: probs.log()
    return method


def labelled_by(method, portion: float) -> list[int]:
    method.find_thresholds([torch.zeros(3, 1, 1)], portion)
    return method.pseudo_labels(torch.zeros(1, 3, 1, 1)).flatten().tolist()


def test_cbst_labels_the_most_confident_portion_of_each_class():
    method = cbst_over({0: (0.9, 0.8, 0.7, 0.6), 1: (0.65, 0.55)})
    assert labelled_by(method, 0.5) == [0, 0, 255, 255, 1, 255]
    edges = torch.sigmoid(
        cbst.LOWEST + method.modules["thresholds"].bins * (cbst.HIGHEST - cbst.LOWEST) / cbst.BINS
    )
    assert edges[:2].tolist() == pytest.approx([0.8, 0.65], abs=3e-3)


def test_cbst_tells_near_certainties_apart():
    """In fp32 probabilities these are all 1; a portion of them is still a portion."""
    method = cbst_over({0: (1 - 1e-9, 1 - 1e-8, 1 - 1e-7, 1 - 1e-6)})
    assert labelled_by(method, 0.5) == [0, 0, 255, 255]


def test_cbst_takes_of_equal_confidences_the_portion_asked_for():
    method = cbst_over({0: (0.9,) * 400})
    taken = labelled_by(method, 0.3).count(0)
    assert 0.25 * 400 < taken < 0.35 * 400


def test_cbst_leaves_a_class_of_too_few_pixels_unlabelled():
    method = cbst_over({0: (0.9,) * 8, 1: (0.99,)})
    # half of one pixel is none
    assert labelled_by(method, 0.5)[-1] == 255


def test_cbst_portion_grows_by_round_and_stops_at_its_end():
    method = make("cbst", False, torch.float32, rounds=4, portion_step=0.2)
    portions = []
    method.find_thresholds = lambda images, portion: portions.append(portion)
    for iteration in range(8):
        method.begin_iteration(iteration, 8, lambda: iter(()))
    assert portions == pytest.approx([0.2, 0.4, 0.5, 0.5])


def test_cbst_labels_by_the_targets_statistics_when_batch_norm_follows_them():
    method = make("cbst", False, torch.float32)
    images = batch().target
    by_running = method.predict(images)
    method.target_statistics = True
    method.labeller.set_batch_norm("target")
    before = method.labeller.backbone.bn1.running_mean.clone()
    by_batch = method.predict(images)
    assert torch.equal(method.labeller.backbone.bn1.running_mean, before)
    assert not torch.allclose(by_running, by_batch)


def test_the_teacher_follows_by_the_ema_factor():
    method = make("fgda-st", False, torch.float32, ema=0.9)
    student = method.model.head.convs[0].weight
    teacher = method.modules["teacher"].head.convs[0].weight
    with torch.no_grad():
        student.fill_(1.0)
        teacher.zero_()
    # 1 - 1/1 = 0: the student's copy
    method.end_iteration(0)
    assert teacher.unique().tolist() == pytest.approx([1.0])
    with torch.no_grad():
        teacher.zero_()
    method.end_iteration(3)  # 1 - 1/4 = 0.75
    assert teacher.unique().tolist() == pytest.approx([0.25])
    # 1 - 1/1001 is more than 0.9
    method.end_iteration(1000)
    assert teacher.unique().tolist() == pytest.approx([0.9 * 0.25 + 0.1])


def test_class_mix_pastes_half_of_the_classes_and_weighs_the_teachers_pixels():
    method = make("fgda-st", False, torch.float32)
    data = batch()
    size = data.target.shape[-2:]
    probs = torch.full((2, *size), 0.5)
    # a quarter of the pixels is sure
    probs[:, : size[0] // 4] = 0.99
    images, labels, weight, from_source = method.mix(
        data, torch.full((2, *size), 3), method.sure_share(probs)
    )
    for i in range(2):
        pasted = method.pasted_pixels(data.labels[i].long(), i)
        assert torch.equal(from_source[i], pasted)
        # half of five, rounded up
        assert len(data.labels[i][pasted].unique()) == 3
        assert torch.equal(images[i][:, pasted], data.source[i][:, pasted])
        assert torch.equal(images[i][:, ~pasted], data.target[i][:, ~pasted])
        assert torch.equal(labels[i][pasted], data.labels[i][pasted].long())
        assert (labels[i][~pasted] == 3).all()
        assert weight[i][pasted].unique().tolist() == [1.0]
        assert weight[i][~pasted].unique().tolist() == pytest.approx([0.25])


def test_class_mix_over_a_source_of_another_size_keeps_labels_on_their_image():
    """Image and label of the source are resized alike: their pixels stay on each other."""
    method = make("fgda-st", False, torch.float32)
    data = batch()
    size = (24, 36)
    data = data._replace(
        source=data.labels[:, None].expand(-1, 3, -1, -1).contiguous(),
        target=data.target[:, :, :24, :36],
    )
    images, labels, weight, _ = method.mix(data, torch.full((2, *size), 3), torch.zeros(2, 1, 1))
    pasted = weight == 1
    assert (
        images.shape[-2:] == size
        and pasted.any()
        and torch.equal(images[:, 0][pasted].long(), labels[pasted])
    )


def test_mixed_images_are_changed_in_colour_and_drawn_again_alike():
    method = make("fgda-st", False, torch.float32, mix_jitter_share=1.0)
    images = batch().target
    method.seed = 3
    method.iteration = 5
    first = method.augment(images)
    assert (
        first.shape == images.shape
        and not torch.equal(first, images)
        and torch.equal(first, method.augment(images))
    )
    method.iteration = 6
    assert not torch.equal(first, method.augment(images))
    still = make("fgda-st", False, torch.float32, mix_jitter_share=0.0, mix_blur_share=0.0)
    assert torch.equal(still.augment(images), images)


OWN_GUESSES = {
    "mic": ("masked",),
    "sfst": ("self_training",),
    "cbst": ("pseudo",),
    "pycda": ("pixel", "image"),
}


@pytest.mark.parametrize("name", OWN_GUESSES)
def test_class_weights_multiply_true_labels_and_no_guesses(name):
    """Guesses of a class that is weighed up would feed themselves."""

    def terms(weight: float) -> dict:
        # so low that an untrained network's guesses count as sure
        sure = {"confidence": 0.01} if name == "mic" else {}
        method = make(name, False, torch.float32, **sure)
        method.class_weights = torch.full((256,), weight)
        if name == "cbst":
            method.find_thresholds(batch().target, 0.5)
        return method.step(batch())

    plain = {term: float(value.detach()) for term, value in terms(1.0).items()}
    weighted = {term: float(value.detach()) for term, value in terms(7.0).items()}
    for term in OWN_GUESSES[name]:
        assert plain[term] > 0
        assert weighted[term] == pytest.approx(plain[term])
    if "seg" in plain:
        assert weighted["seg"] == pytest.approx(7 * plain["seg"], rel=1e-5)


def test_void_is_no_class_of_the_mix():
    method = make("dacs", False, torch.float32)
    truth = torch.tensor([[0, 1, 2], [255, 255, 3]])
    for method.iteration in range(40):
        pasted = method.pasted_pixels(truth, 0)
        assert not pasted[truth == 255].any() and pasted.sum() == 2
    assert not method.pasted_pixels(torch.full((2, 3), 255), 0).any()


def test_of_mixed_images_class_weights_multiply_the_pasted_pixels_alone():
    def gradient(weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        method = make("dacs", False, torch.float32)
        method.class_weights = torch.full((256,), weight)
        logits = torch.zeros(1, 5, 2, 2, requires_grad=True)
        labels = torch.tensor([[[0, 1], [2, 3]]])
        pasted = torch.tensor([[[True, False], [False, True]]])
        method.cross_entropy(logits, labels, by_class=pasted).backward()
        return logits.grad.abs().sum(1)[0], pasted[0]

    plain, pasted = gradient(1.0)
    weighted, _ = gradient(7.0)
    assert torch.allclose(weighted[pasted], 7 * plain[pasted])
    assert torch.allclose(weighted[~pasted], plain[~pasted])
