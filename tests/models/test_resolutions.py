"""Two resolutions: the mix by hand, windows that cover, what training draws, and a run that
resumes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fgda_cli import losses
from fgda_cli.methods.registry import method_class
from fgda_cli.models import checkpoint
from fgda_cli.models.normalisation import batch_norms
from fgda_cli.models.resolutions import TwoResolutions
from fgda_cli.runtime.devices import Precision
from fgda_cli.runtime.errors import UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.settings import Model
from fgda_cli.signals.observe import Frames, observe
from fgda_cli.training import stages
from tests.helpers import crash_at, same

SMALL = Model(
    backbone="resnet18",
    width=8,
    multi_level=False,
    head="fused",
    head_width=16,
    dilations=(2,),
    detail=(32, 32),
    align_corners=False,
)


def network():
    torch.manual_seed(0)
    return checkpoint.build_model(SMALL, 5)


def images(count=2, size=(64, 96)):
    return torch.randint(0, 256, (count, 3, *size), generator=torch.Generator().manual_seed(1))


def test_the_mix_by_hand(monkeypatch):
    """[HRDA]: context 2, detail 4, attention .25: 2.5 inside the window, 2 outside."""
    net = network().train()
    # a window that whole cells of the attention make up
    for iteration in range(99):
        net.begin_iteration(0, iteration)
        if all(side % 16 == 0 for side in net.draw_box((64, 96))):
            break
    net.begin_iteration(0, iteration)
    heads = iter((2.0, 4.0))
    monkeypatch.setattr(
        net.head, "forward", lambda x: torch.full((len(x), 5, *x.shape[-2:]), next(heads))
    )
    monkeypatch.setattr(
        net.attention_head, "forward", lambda x: torch.full((len(x), 5, *x.shape[-2:]), -1.0986123)
    )
    output = net(images())
    # the fused head's maps are at an eighth
    top, bottom, left, right = (side // 8 for side in output.detail.box)
    inside = torch.zeros(output.logits.shape[-2:], dtype=torch.bool)
    inside[top:bottom, left:right] = True
    inner = inside.clone()
    # attention is enlarged bilinearly: its border is soft
    inner[[top, bottom - 1], :] = False
    inner[:, [left, right - 1]] = False
    assert output.logits[0, 0][inner] == pytest.approx(2.5, abs=1e-6)
    far = torch.ones_like(inside)
    far[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = False
    assert far.any() and output.logits[0, 0][far] == pytest.approx(2.0, abs=1e-6)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 8), st.integers(1, 8))
def test_windows_cover_the_image(rows, columns, high, wide):
    net = TwoResolutions.__new__(TwoResolutions)
    torch.nn.Module.__init__(net)
    net.detail = (8 * wide, 8 * high)
    size = (8 * rows, 8 * columns)
    seen = torch.zeros(size, dtype=torch.int)
    for top, bottom, left, right in net.boxes(size):
        assert 0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1


def test_windows_read_together_give_what_they_give_one_by_one(monkeypatch):
    net = network().eval()
    with torch.no_grad():
        expected = net(images()).logits
        for count in (2, 100):
            monkeypatch.setattr(
                TwoResolutions, "windows_at_once", lambda self, images, count=count: count
            )
            torch.testing.assert_close(net(images()).logits, expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_of_a_teacher_in_training_sees_all_windows_together():
    """[HRDA]'s code stacks them: statistics of one window alone would be those of one place."""
    net = network().train()
    seen = []
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(lambda layer, inputs, output: seen.append(len(inputs[0])))
    with torch.no_grad():
        # no draws: it teaches
        net(images())
    assert set(seen) == {2, 2 * len(net.boxes((64, 96)))}


def test_training_draws_a_window_from_seed_and_iteration_and_evaluation_none():
    net = network().train()
    net.begin_iteration(3, 7)
    first = net(images()).detail.box
    second = net(images()).detail.box
    net.begin_iteration(3, 7)
    assert net(images()).detail.box == first
    boxes = set()
    for iteration in range(30):
        net.begin_iteration(3, iteration)
        boxes.add(net(images(1)).detail.box)
    assert len(boxes) > 5 and all(side % 8 == 0 for box in (*boxes, second) for side in box)
    assert net.eval()(images()).detail is None
    whole = network().train()
    # a teacher's network reads all windows
    assert whole(images()).detail is None


def test_the_windows_own_loss_is_a_tenth():
    net = network().train()
    cls = method_class("source-only")
    method = cls(net, cls.Settings(name="source-only"))
    net.begin_iteration(0, 0)
    labels = torch.randint(0, 5, (2, 64, 96), dtype=torch.uint8)
    output = method.forward(images())
    weight = torch.rand(2, 64, 96)
    top, bottom, left, right = output.detail.box
    whole = losses.segmentation_loss(output.logits, labels, weight=weight, align_corners=False)
    own = (labels[:, top:bottom, left:right], weight[:, top:bottom, left:right])
    part = losses.segmentation_loss(
        output.detail.logits, own[0], weight=own[1], align_corners=False
    )
    torch.testing.assert_close(method.output_loss(output, labels, weight), 0.9 * whole + 0.1 * part)
    method.output_loss(output, labels).backward()
    assert all(p.grad is not None for p in net.parameters())
    assert sum(
        p.numel() for group in net.parameter_groups(1.0, 10.0) for p in group["params"]
    ) == sum(p.numel() for p in net.parameters())


def test_settings_that_cannot_be_are_said():
    for wrong, said in (
        ({"multi_level": True}, "no auxiliary level"),
        ({"head": "aspp"}, "head with a neck"),
        ({"detail": (30, 32)}, "8 divides"),
    ):
        with pytest.raises(UsageError, match=said):
            checkpoint.build_model(SMALL.model_copy(update=wrong), 5)


def test_mic_at_two_resolutions_resumes_bit_identically(
    data_root, tiny_preset, tmp_path, monkeypatch
):
    preset = tiny_preset(
        "model.head=fused",
        "model.head_width=16",
        "model.dilations=[2]",
        "model.multi_level=false",
        "model.detail=[32,32]",
        "model.align_corners=false",
        "method.mask_block=8",
        method="mic",
    )
    job = stages.Job(
        preset, data_root, tmp_path / "pre", device="cpu", reporter=Reporter(quiet=True)
    )
    start = stages.pretrain(job)
    ours = replace(job, out=tmp_path / "whole")
    whole = stages.adapt(ours, start)
    crash_at(monkeypatch, 3, lambda: stages.adapt(replace(ours, out=tmp_path / "parts"), start))
    assert same(whole, stages.adapt(replace(ours, out=tmp_path / "parts"), start))


def test_statistics_mixed_in_are_those_of_whole_images_and_windows_alike():
    """15 windows and one whole image a picture: their sums were divided by the pictures alone, 14
    times too much.
    """
    net = network().eval()
    batch = images(3)
    seen: list[torch.Tensor] = []
    first = batch_norms(net.backbone)[0]
    with torch.no_grad():
        for layer in batch_norms(net):
            layer.running_var.fill_(0.5)
        hook = next(
            m for m in net.backbone.modules() if isinstance(m, torch.nn.Conv2d)
        ).register_forward_hook(lambda _, __, found: seen.append(found.detach()))
        assert net.mix_statistics([batch[:2], batch[2:]], 1.0)
    hook.remove()
    assert len(seen) == 2 * (1 + len(net.boxes((64, 96))))
    means = torch.cat([one.mean((2, 3)) for one in seen])
    assert first.running_mean == pytest.approx(means.mean(0), abs=1e-5)
    variances = torch.stack([one.var((0, 2, 3)) for one in seen])
    weights = torch.tensor([float(len(one)) for one in seen])
    assert first.running_var == pytest.approx(
        (variances * weights[:, None]).sum(0) / weights.sum(), rel=1e-4
    )


def test_bn_distance_does_not_grow_with_the_number_of_windows():
    """Signals of a network whose statistics are those of the frames: near 0, at two resolutions as
    at one.
    """
    net = network().eval()
    frames = [np.ascontiguousarray(image.permute(1, 2, 0).byte().numpy()) for image in images(3)]
    net.mix_statistics([torch.from_numpy(frame).permute(2, 0, 1)[None] for frame in frames], 1.0)
    observed = observe(net, Frames(frames), Precision("fp32", torch.device("cpu")))
    assert observed.signals["bn_distance"] < 0.3


def test_the_attention_drops_channels_in_training_as_the_head_does():
    """PARITY2, row 26."""
    net = checkpoint.build_model(SMALL.model_copy(update={"dropout": 0.5}), 5).train()
    seen = []
    net.attention_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net.begin_iteration(0, 0)
    torch.manual_seed(0)
    net(images())
    dropped = (seen[0].flatten(2).abs().sum(2) == 0).float().mean().item()
    assert 0.2 < dropped < 0.9


def test_windows_never_begin_at_the_last_place():
    """Row 40: 0 to 504 of 512 pixels, by 8."""
    net = network()
    net.detail = (32, 32)
    places = set()
    for iteration in range(300):
        net.begin_iteration(0, iteration)
        places.add(net.draw_box((64, 32))[0])
    assert places == {0, 8, 16, 24}
