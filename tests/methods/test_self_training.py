"""CBST's thresholds, FGDA-ST's teacher and mixing, CLAN's summed head: worked by hand."""

from __future__ import annotations

import pytest
import torch

from fgda_cli import losses

from .test_fada import batch, make


def test_cbst_thresholds_are_the_confidence_at_the_portion_of_each_class():
    method = make("cbst", False, torch.float32)
    top = {0: (0.9, 0.8, 0.7, 0.6), 1: (0.65, 0.55)}
    pixels = [(k, c) for k, confidences in top.items() for c in confidences]
    probs = torch.zeros(1, 5, 1, len(pixels))
    for place, (k, confidence) in enumerate(pixels):
        probs[0, :, 0, place] = (1 - confidence) / 4
        probs[0, k, 0, place] = confidence
    method.predict = lambda images: probs
    thresholds = method.find_thresholds([torch.zeros(3, 1, 1)], 0.5)
    assert thresholds.tolist() == pytest.approx([0.8, 0.65, 1, 1, 1], abs=2e-3)
    method.modules["thresholds"].values.copy_(thresholds)
    # 0.7 and 0.6 of class 0 and 0.55 of class 1 miss their thresholds
    assert method.pseudo_labels(torch.zeros(1, 3, 1, 1)).flatten().tolist() == [0, 0, 255, 255, 1, 255]


def test_cbst_portion_grows_by_round_and_stops_at_its_end():
    method, portions = make("cbst", False, torch.float32, rounds=4, portion_step=0.2), []
    method.find_thresholds = lambda images, portion: portions.append(portion) or torch.ones(5)
    for iteration in range(8):
        method.begin_iteration(iteration, 8, lambda: iter(()))
    assert portions == pytest.approx([0.2, 0.4, 0.5, 0.5])


def test_cbst_labels_by_the_targets_statistics_when_batch_norm_follows_them():
    method = make("cbst", False, torch.float32)
    images = batch().target
    by_running = method.predict(images)
    method.labeller.frozen_batch_norm, method.target_statistics = False, True
    before = method.labeller.backbone.bn1.running_mean.clone()
    by_batch = method.predict(images)
    assert torch.equal(method.labeller.backbone.bn1.running_mean, before)
    assert not torch.allclose(by_running, by_batch)


def test_the_teacher_follows_by_the_ema_factor():
    method = make("fgda-st", False, torch.float32, ema_start=0.5, ema_end=0.9)
    student, teacher = method.model.head.convs[0].weight, method.modules["teacher"].head.convs[0].weight
    with torch.no_grad():
        student.fill_(1.0)
        teacher.zero_()
    method.end_iteration(0)
    assert teacher.unique().tolist() == pytest.approx([0.5])
    method.end_iteration(3)  # 1 - 1/4 = 0.75
    assert teacher.unique().tolist() == pytest.approx([0.75 * 0.5 + 0.25])
    method.end_iteration(1000)
    assert teacher.unique().tolist() == pytest.approx([0.9 * 0.625 + 0.1])


def test_class_mix_pastes_half_of_the_classes_and_weighs_the_teachers_pixels():
    method, data = make("fgda-st", False, torch.float32), batch()
    size = data.target.shape[-2:]
    probs = torch.full((2, *size), 0.5)
    probs[:, : size[0] // 4] = 0.99  # a quarter of the pixels is sure
    method.teach = lambda images, size: (probs, torch.full((2, *size), 3))
    images, labels, weight = method.mix(data)
    for i in range(2):
        pasted = method.chosen(data.labels[i].long(), i)
        assert len(data.labels[i][pasted].unique()) == 3  # half of five, rounded up
        assert torch.equal(images[i][:, pasted], data.source[i][:, pasted])
        assert torch.equal(images[i][:, ~pasted], data.target[i][:, ~pasted])
        assert torch.equal(labels[i][pasted], data.labels[i][pasted].long())
        assert (labels[i][~pasted] == 3).all()
        assert weight[i][pasted].unique().tolist() == [1.0]
        assert weight[i][~pasted].unique().tolist() == pytest.approx([0.25])


def test_clan_ships_one_head_equal_to_the_sum_of_its_two():
    method, data = make("clan", False), batch()
    with torch.no_grad():
        for parameter in method.modules["second_head"].parameters():
            parameter.add_(torch.randn_like(parameter))
    trained = method.forward(data.target).logits
    method.model.load_state_dict(method.inference_state_dict())
    torch.testing.assert_close(method.model(data.target).logits.float(), trained, rtol=1e-5, atol=1e-5)


def test_clan_weighs_pixels_by_the_heads_disagreement():
    method, data = make("clan", False, lambda_local=40.0, epsilon=0.4), batch()
    method.modules["second_head"].load_state_dict(method.model.head.state_dict())
    output = method.forward(data.target)
    assert method.pixel_weight(output, (4, 6)).flatten().tolist() == pytest.approx([0.4] * 48, abs=1e-4)
    with torch.no_grad():
        for parameter in method.modules["second_head"].parameters():
            parameter.neg_()
    output = method.forward(data.target)
    second = method.second(output)
    first = torch.softmax(losses.upsample(output.logits - second, (4, 6)), 1)
    expected = 40 * losses.disagreement(first, torch.softmax(losses.upsample(second, (4, 6)), 1)) + 0.4
    torch.testing.assert_close(method.pixel_weight(output, (4, 6)), expected)
