"""CLAN's step against the published recipe, written plainly with one graph; its loss terms by hand;
what it ships.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fgda_cli import losses
from tests.helpers import batch, make


def part(method):
    """Let the two heads disagree."""
    torch.manual_seed(1)
    with torch.no_grad():
        for head in (method.model.head, method.modules["second_head"]):
            for parameter in head.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.5)
    return method


def test_focal_loss_by_hand():
    # p of class 0 is 0.75
    logits = torch.tensor([[[[math.log(3.0)]], [[0.0]]]], dtype=torch.float64)
    found = losses.segmentation_loss(
        logits, torch.zeros(1, 1, 1, dtype=torch.uint8), focal_gamma=2.0
    )
    assert float(found) == pytest.approx(0.25**2 * -math.log(0.75))


def plain_step(method, data, progress):
    """The published order with plain autograd: sources, then the adversary, the heads' divergence,
    then D on both domains.
    """
    s = method.settings
    up = losses.upsample
    heads = (method.model.head, method.modules["second_head"])
    d = method.discriminators["discriminator"]
    size = data.labels.shape[-2:]

    def focal(logits):
        ce = F.cross_entropy(
            up(logits, size), data.labels.long(), ignore_index=255, reduction="none"
        )
        return ((1 - torch.exp(-ce)) ** 2 * ce).mean()

    source = method.model(data.source).features
    first, second = (head(source) for head in heads)
    (focal(first) + focal(second)).backward()
    target = method.model(data.target).features
    t1, t2 = (up(head(target), size) for head in heads)
    weight = torch.ones_like(t1[:, :1])
    if progress >= s.warmup_share:
        cosine = F.cosine_similarity(t1.softmax(1), t2.softmax(1), dim=1)[:, None]
        weight = s.lambda_local * (1 - cosine) + s.epsilon
    judged = up(d((t1 + t2).softmax(1)), size)
    damping = 1 - progress
    bce = F.binary_cross_entropy_with_logits(judged, torch.zeros_like(judged), reduction="none")
    (s.lambda_main * damping * (weight * bce).mean()).backward()
    flat = [torch.cat([p.flatten() for p in head.parameters()]) for head in heads]
    (2 * s.lambda_weight * damping * (1 + F.cosine_similarity(*flat, dim=0))).backward()
    d.zero_grad()
    on_source = up(d(up(first + second, size).softmax(1).detach()), size)
    on_target = up(d((t1 + t2).softmax(1).detach()), size)
    F.binary_cross_entropy_with_logits(on_source, torch.zeros_like(on_source)).backward()
    bce = F.binary_cross_entropy_with_logits(
        on_target, torch.ones_like(on_target), reduction="none"
    )
    (weight.detach() * bce).mean().backward()


# before and after the warm-up
@pytest.mark.parametrize("iteration", [0, 50])
def test_gradients_equal_the_published_recipe(iteration):
    ours, plain = (part(make("clan", False, torch.float32, lambda_main=0.5)) for _ in range(2))
    data = batch()
    ours.begin_iteration(iteration, 100, lambda: ())
    ours.step(data)
    plain_step(plain, data, iteration / 100)
    modules = [
        (m.model, m.modules["second_head"], m.discriminators["discriminator"])
        for m in (ours, plain)
    ]
    checked = 0
    for found, expected in zip(*modules, strict=True):
        for (name, p), q in zip(found.named_parameters(), expected.parameters(), strict=True):
            if q.grad is not None:
                torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-6, msg=name)
                checked += 1
    assert checked > 40


def test_it_ships_one_head_equal_to_the_sum_of_its_two():
    method = part(make("clan", False))
    data = batch()
    output, second = method.both(data.target)
    method.model.load_state_dict(method.inference_state_dict())
    torch.testing.assert_close(
        method.model(data.target).logits.float(), output.logits + second, rtol=1e-5, atol=1e-5
    )


def test_pixels_weigh_one_in_the_warm_up_then_epsilon_and_the_heads_disagreement():
    method = make("clan", False, lambda_local=40.0, epsilon=0.4, warmup_share=0.05)
    logits = torch.randn(2, 5, 4, 6, dtype=torch.float64)
    assert method.pixel_weight(logits, -logits).unique().tolist() == [1.0]
    method.progress = 0.05
    assert method.pixel_weight(logits, logits).flatten().tolist() == pytest.approx(
        [0.4] * 48, abs=1e-6
    )
    expected = 40 * losses.disagreement(logits.softmax(1), (-logits).softmax(1)) + 0.4
    torch.testing.assert_close(method.pixel_weight(logits, -logits), expected)


def test_damping_falls_linearly_to_nothing():
    method = part(make("clan", False, torch.float32, warmup_share=0.0))
    data = batch()
    found = []
    for iteration in (0, 50):
        method.begin_iteration(iteration, 100, lambda: ())
        terms = method.step(data)
        found.append(tuple(float(terms[name].detach()) for name in ("adv", "divergence")))
    assert [second / first for first, second in zip(*found, strict=True)] == pytest.approx(
        [0.5, 0.5], rel=1e-4
    )
