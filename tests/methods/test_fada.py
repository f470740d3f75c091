"""The shared discriminator forward against the published recipe, written plainly: same losses, same
gradients.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy as soft_cross_entropy

from fgda_cli import losses
from fgda_cli.methods.registry import method_names
from tests.helpers import batch, gradients, make


def soft_labels(logits, domain, settings):
    """Return [a;0] for the source, [0;a] for the target, `[B,2K,H,W]`."""
    code = losses.class_encoding(logits, settings.temperature, settings.clip)
    none = torch.zeros_like(code)
    return torch.cat([code, none] if domain == "source" else [none, code], dim=1)


def plain_recipe(method, data):
    """The order of the public code: two target forwards of D, one-sided labels built in full."""
    s = method.settings
    size = data.labels.shape[-2:]
    up = lambda z: losses.upsample(z, size)  # noqa: E731
    source = method.model(data.source)
    loss = losses.segmentation_loss(up(source.logits), data.labels, temperature=s.seg_temperature)
    if source.aux_logits is not None:
        loss = loss + s.aux_seg * losses.segmentation_loss(
            up(source.aux_logits), data.labels, temperature=s.seg_temperature
        )
    loss.backward()
    target = method.model(data.target)
    total = 0.0
    for name, d in method.discriminators.items():
        factor = s.aux_adv_factor if name.startswith("aux") else 1.0
        features, logits = method.level(target, name)
        code = soft_labels(up(logits), "source", s)
        total = total + s.lambda_adv * factor * soft_cross_entropy(up(d(features)), code)
        if hasattr(s, "eta"):
            total = total + s.lambda_adv * s.eta * factor * losses.entropy_loss(
                up(logits), s.entropy_temperature
            )
    total.backward()
    for name, d in method.discriminators.items():
        d.zero_grad()
        f_s, l_s = method.level(source, name)
        f_t, l_t = method.level(target, name)
        on_source = soft_cross_entropy(up(d(f_s.detach())), soft_labels(up(l_s), "source", s))
        on_target = soft_cross_entropy(up(d(f_t.detach())), soft_labels(up(l_t), "target", s))
        (0.5 * on_source + 0.5 * on_target).backward()


@pytest.mark.parametrize("name", ["fada", "fgda"])
@pytest.mark.parametrize("multi_level", [False, True])
def test_gradients_equal_the_published_recipe(name, multi_level):
    ours = make(name, multi_level, lambda_adv=0.5)
    plain = make(name, multi_level, lambda_adv=0.5)
    data = batch()
    ours.step(data)
    plain_recipe(plain, data)
    expected = gradients(plain)
    for key, found in gradients(ours).items():
        torch.testing.assert_close(found, expected[key], rtol=1e-3, atol=1e-7, msg=key)


def test_fgda_without_entropy_is_fada():
    ours = make("fgda", False, eta=0.0)
    fada = make("fada", False)
    ours.step(batch())
    fada.step(batch())
    expected = gradients(fada)
    for key, found in gradients(ours).items():
        torch.testing.assert_close(found, expected[key])


@pytest.mark.parametrize("name", method_names())
def test_every_method_steps_from_a_trained_model_without_losing_it(name):
    """After some source-only steps, as methods are used; finite terms, and the source loss stays
    below its start.
    """
    method = make(name, True, torch.float32)
    data = batch()
    values = []

    def source_loss() -> float:
        with torch.no_grad():
            return float(
                method.segmentation_losses(
                    method.forward(data.source, is_target=False), data.labels
                )["seg"]
            )

    start = source_loss()
    optimizer = torch.optim.SGD(method.segmentation_groups(0.002, 1.0), momentum=0.9)
    for iteration in range(-12, 8):
        for module in (method.model, *method.modules.values()):
            module.zero_grad()
        if iteration < 0:
            _, terms = method.source_pass(data)
        else:
            method.begin_iteration(iteration, 8, lambda: iter(data.target))
            terms = method.step(data)
            method.end_iteration(iteration)
        assert all(torch.isfinite(term) for term in terms.values())
        values.append(float(terms["seg"].detach()) if "seg" in terms else None)
        optimizer.step()
    # without a source nothing holds it: see `guarded`
    assert source_loss() < start if method.uses_source else values[-1] is None


def test_target_statistics_leave_out_the_source():
    method = make("source-only", False)
    method.target_statistics = True
    method.model.set_batch_norm("target")
    method.model.train()
    before = method.model.backbone.bn1.running_mean.clone()
    method.source_pass(batch())
    assert torch.equal(method.model.backbone.bn1.running_mean, before)
    method.forward(batch().target)
    assert not torch.equal(method.model.backbone.bn1.running_mean, before)
