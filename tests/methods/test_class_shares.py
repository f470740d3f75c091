"""Alignment where classes differ in share: estimated shares, weights of the domain encoding,
confidence, spared classes.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fgda_cli import losses
from fgda_cli.methods.pieces.class_shares import domain_weights, maximise_expectation
from fgda_cli.presets import load_preset
from fgda_cli.runtime.errors import UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import stages
from tests.helpers import crash_at


def posteriors(shares, prior, count=40_000, seed=0):
    """Of a model that is right about p(x|k): one-dimensional Gaussians, seen through its prior
    `[K]`.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = torch.multinomial(shares, count, replacement=True, generator=generator)
    x = 1.5 * classes + torch.randn(count, generator=generator)
    likelihood = torch.exp(-0.5 * (x[:, None] - 1.5 * torch.arange(len(shares))) ** 2)
    joint = likelihood * prior
    return (joint / joint.sum(1, keepdim=True)).double()


def test_shares_are_recovered_from_predictions_of_a_model_with_another_prior():
    true = torch.tensor([0.1, 0.3, 0.6])
    prior = torch.tensor([0.6, 0.3, 0.1])
    found = maximise_expectation(posteriors(true, prior), prior.double())
    torch.testing.assert_close(found, true.double(), atol=0.02, rtol=0)
    naive = posteriors(true, prior).mean(0)
    # what the predictions say without it
    assert (naive - true).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["source", "target", "importance"])
def test_weights_are_one_on_average_over_their_domain(kind):
    source = torch.tensor([0.7, 0.2, 0.1])
    target = torch.tensor([0.3, 0.3, 0.4])
    weights = domain_weights(kind, 0.5, source, target=target)
    shares = {"source": source, "target": target}
    for name, weight in weights.items():
        assert float((shares[name] * weight).sum()) == pytest.approx(1)
    if kind == "importance":
        assert set(weights) == {"source"}
        # the discriminator sees the target's shares
        torch.testing.assert_close(source * weights["source"], target)
    else:
        assert weights["source"].argmax() == (source if kind == "source" else target).argmin()


def make_logits():
    generator = torch.Generator().manual_seed(3)
    domain = torch.randn(2, 6, 4, 5, generator=generator, dtype=torch.float64)
    return domain, 3 * torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)


def test_weighted_domain_losses_equal_the_plain_formula():
    """Value and gradient, beside soft-label cross-entropy written out at full size."""
    domain, logits = make_logits()
    weights = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    size = (9, 11)
    gate = 0.6
    values, grads = losses.domain_losses(
        domain, logits, size, class_weights=weights, min_confidence=gate
    )
    for name, value, grad in zip(("source", "target"), values, grads, strict=True):
        leaf = domain.clone().requires_grad_()
        full = losses.upsample(logits, size)
        sure = torch.softmax(full, 1).amax(1, keepdim=True) >= gate
        assert 0.1 < sure.double().mean() < 0.9
        code = (
            losses.domain_encoding(full, name) * torch.cat([weights, weights])[:, None, None] * sure
        )
        plain = losses.soft_label_cross_entropy(losses.upsample(leaf, size), code)
        plain.backward()
        torch.testing.assert_close(value, plain.detach())
        torch.testing.assert_close(grad, leaf.grad)


def test_entropy_spares_classes():
    _, logits = make_logits()
    leaf = logits.clone().requires_grad_()
    spared = torch.tensor([False, True, False])
    loss = losses.entropy_loss(leaf, size=(9, 11), spared=spared)
    full = losses.upsample(logits, (9, 11))
    kept = full.argmax(1) != 1
    torch.testing.assert_close(
        loss.detach(), (losses.entropy_map(full) * kept).sum() / kept.numel()
    )
    loss.backward()
    assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("kind", ["source", "importance"])
def test_a_resumed_run_keeps_its_estimate(
    kind, data_root, tiny_preset, trained, tmp_path, monkeypatch
):
    keys = (
        "class_weighting=" + kind,
        "min_confidence=0.2",
        "entropy_min_share=0.01",
        "lambda_adv=0.05",
    )
    preset = tiny_preset(*(f"method.{key}" for key in keys), method="fgda")
    job = stages.Job(
        preset, data_root, tmp_path / "whole", device="cpu", reporter=Reporter(quiet=True)
    )
    whole = torch.load(stages.adapt(job, trained), weights_only=True)["model"]
    parts = replace(job, out=tmp_path / "parts")
    crash_at(monkeypatch, 3, lambda: stages.adapt(parts, trained))
    again = replace(parts, reporter=Reporter(quiet=True, decisions=[]))
    resumed = torch.load(stages.adapt(again, trained), weights_only=True)["model"]
    assert not any("class shares" in said for said in again.reporter.decisions), (
        "the estimate is the start's"
    )
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_unknown_weighting_is_refused_with_the_choices():
    with pytest.raises(
        UsageError,
        match="class_weighting: input should be 'none', 'source', 'target' or 'importance'",
    ):
        load_preset("playground", ["method.class_weighting=inverse"], "fgda")


@pytest.mark.parametrize(("method", "estimates"), [("fada", True)])
def test_weights_without_an_adversarial_loss(
    method, estimates, data_root, tiny_preset, trained, tmp_path
):
    """lambda_adv 0 still trains fada's discriminator, which sees weighted classes."""
    preset = tiny_preset(
        "method.class_weighting=source", "method.lambda_adv=0", "adapt.iterations=1", method=method
    )
    job = stages.Job(
        preset,
        data_root,
        tmp_path / "run",
        device="cpu",
        reporter=Reporter(quiet=True, decisions=[]),
    )
    stages.adapt(job, trained)
    assert any("class shares" in said for said in job.reporter.decisions) == estimates
