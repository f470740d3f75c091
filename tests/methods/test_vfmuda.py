"""VFM-UDA++: golden values of its parts, its step against the published recipe written plainly, and
what can be left out.
"""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fgda_cli.data import augment, sampling
from fgda_cli.data.loader import PairedSamples
from fgda_cli.data.store import open_dataset
from fgda_cli.data.tensor_augment import strong_view
from fgda_cli.methods.mic import block_mask, stay
from fgda_cli.methods.optimizers import poly, refine
from fgda_cli.methods.pieces.distillation import WEAK
from fgda_cli.methods.registry import method_class
from fgda_cli.methods.vfmuda import STRONG
from fgda_cli.models.foundation import FeatureHead, feature_gap, load_foundation
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.presets import load_preset
from fgda_cli.runtime.errors import FgdaError, UsageError
from fgda_cli.runtime.random import StepStream, generator_of
from tests.helpers import FOUNDATION, IMAGENET, batch, gradients, make

VIT = FOUNDATION["distil_model"]


def counted(*shape):
    return torch.arange(math.prod(shape), dtype=torch.float64).view(shape)


def with_foundation(**settings):
    return make("vfmuda", False, mask_block=8, **settings)


# golden values


def test_distillation_loss():
    s = torch.sin(0.37 * counted(2, 5, 3, 4))
    t = 2 * torch.cos(0.23 * counted(2, 5, 3, 4) + 0.5)
    found = [float(feature_gap(s, t, cosine)) for cosine in (0.9, 0.0, 1.0)]
    assert found == pytest.approx([0.816993, 0.825659, 0.816030], abs=1e-6)


def test_feature_head():
    head = FeatureHead(4, 6).double()
    for key, value in head.state_dict().items():
        base = 1.0 if value.ndim == 1 and key == "feat_project.1.weight" else 0.0
        value.copy_(base + 0.3 * torch.sin(0.7 * counted(*value.shape) + sum(map(ord, key)) % 97))
    x = torch.sin(0.5 * counted(1, 4, 4, 4))
    small = head(x, (3, 3)).detach()
    whole = head(x, (4, 4)).detach()
    golden = [0.431663, 1.729417, 0.557496, -1.169641, -0.809342, 0.848794]
    assert small[0, :, 0, 0].tolist() == pytest.approx(golden, abs=1e-6)
    golden = [0.308253, 1.602003, 0.629175, -1.013125, -0.817474, 0.688976]
    assert small[0, :, 2, 1].tolist() == pytest.approx(golden, abs=1e-6)
    assert float(small.sum()) == pytest.approx(14.793917, abs=1e-5)
    golden = [0.395182, 1.590094, 0.537410, -1.038473, -0.736000, 0.747403]
    assert whole[0, :, 0, 0].tolist() == pytest.approx(golden, abs=1e-6)


def test_block_masks():
    draws = (0.5 + 0.5 * torch.sin(1.3 * torch.arange(16))).view(2, 2, 4)
    masks = [stay(draw, (40, 56), 0.7) for draw in draws]
    assert [int(mask.sum()) for mask in masks] == [840, 840]
    assert masks[0][0].nonzero().flatten().tolist() == list(range(14, 42))
    assert masks[0].sum(1).tolist() == [28] * 20 + [14] * 20
    draws = (0.5 + 0.5 * torch.sin(1.3 * torch.arange(2 * 18 * 18))).view(2, 18, 18)
    assert [int(stay(draw, (1120, 1120), 0.7).sum()) for draw in draws] == [476167, 472198]
    assert block_mask((1024, 1024), 57, 0.7, generator=generator_of(0)).shape == (1024, 1024)


class Teacher(torch.nn.Module):
    """The golden case's: logits of normalised pixels; `lean` makes the mirrored pass another."""

    def __init__(self, lean: float):
        super().__init__()
        self.lean = lean

    def untracked_statistics(self):
        return torch.no_grad()

    def forward(self, images, with_aux=True):
        mean, std = (part.double() for part in IMAGENET)
        n = (images / 255 - mean) / std
        rho = self.lean * torch.arange(6, dtype=torch.float64) / 5
        logits = [
            9 * n[:, 0] - 2 * n[:, 1] + 3 * rho,
            6 * n[:, 1] + n[:, 2] - 2 * rho,
            4 * n[:, 2] - 3 * n[:, 0],
        ]
        return type("Output", (), {"logits": torch.stack(logits, dim=1)})


def pseudo_labels(lean):
    method = with_foundation()
    method.modules["teacher"] = Teacher(lean)
    images = 255 * (0.5 + 0.5 * torch.sin(0.9 * counted(2, 3, 4, 6) + 0.2))
    probs, labels = method.teach(images, (4, 6))
    text = ["/".join("".join(map(str, row)) for row in image) for image in labels.tolist()]
    return method, labels, method.sure_share(probs), text


def test_pseudo_labels_of_image_and_mirror_image():
    method, labels, weight, text = pseudo_labels(1.0)
    assert text == ["000021/100002/110000/211000", "021110/002111/000211/100021"]
    assert weight.unique().tolist() == [pytest.approx(33 / 48)]
    inside = torch.ones(2, 4, 6, dtype=torch.bool)
    inside[:, 0] = inside[1, :, 0] = False
    weight = weight * method.inside(batch()._replace(target_border=inside))
    assert float(weight.sum()) == pytest.approx(22.6875)
    loss = method.cross_entropy(2 * torch.sin(0.41 * counted(2, 3, 4, 6)), labels, weight)
    assert float(loss) == pytest.approx(0.888819, abs=1e-6)
    _, _, weight, text = pseudo_labels(0.0)
    assert text == ["000021/100022/110002/211000", "021110/002111/000211/100021"]
    assert float(weight[0, 0, 0]) == pytest.approx(34 / 48)


def test_border_of_a_frame():
    view = load_preset("gta2city-vfmuda", []).data.target
    (mask,) = PairedSamples._border(SimpleNamespace(reads_border=True), (100, 200), view)
    assert int(mask.sum()) == 13536 and mask.size - int(mask.sum()) == 6464


def test_schedule_is_the_published_one_but_for_a_thousandth_in_the_warm_up():
    factor = poly(1.0, 1500)
    for t, published in (
        (0, 0.001),
        (1, 0.00166644),
        (749, 0.50016678),
        (1499, 1),
        (1500, 0.9625),
        (20000, 0.5),
    ):
        assert factor(t, 40000) == pytest.approx(published, abs=1e-3 if t < 1500 else 1e-9)


def test_the_teachers_first_update_is_the_mean_of_both():
    method = with_foundation()
    slow = method.modules["teacher"].head.convs[0].bias
    fast = method.model.head.convs[0].bias
    for iteration, factor in (
        (0, 0.5),
        (1, 2 / 3),
        (2, 0.75),
        (9, 0.909091),
        (997, 0.998999),
        (998, 0.999),
        (5000, 0.999),
    ):
        with torch.no_grad():
            slow.zero_(), fast.fill_(1.0)
        method.end_iteration(iteration)
        assert float(slow[0]) == pytest.approx(1 - factor, abs=1e-6)


def test_learning_rates_by_part():
    """Four blocks, eta 1.414214e-4: the new parts learn at eta, the last block at a tenth of it,
    0.9 from block to block.
    """
    preset = load_preset("synthia2city-vfmuda", [])
    model = Segmenter(
        19,
        "adapter:tiny14",
        output_stride="native",
        multi_level=False,
        head="upscale",
        head_width=8,
    )
    optim = preset.optim.model_copy(update={"layer_decay": 0.9, "decay_norms": True})
    groups = refine(model.parameter_groups(optim.lr, optim.head_lr_factor), model, optim)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    named = {name: rate[id(p)] for name, p in model.named_parameters()}
    # norms, biases and embeddings decay as the rest
    assert all("weight_decay" not in group for group in groups)
    blocks = [named[f"backbone.blocks.{n}.attn.qkv.weight"] for n in (3, 2, 1, 0)]
    assert blocks == pytest.approx(
        [1.41421356e-5, 1.27279221e-5, 1.14551299e-5, 1.03096169e-5], rel=1e-5
    )
    for name in ("cls_token", "pos_embed", "patch_embed.proj.weight"):
        assert named[f"backbone.{name}"] == pytest.approx(9.27865518e-6, rel=1e-5)
    new = (
        "backbone.spm.",
        "backbone.interactions.",
        "backbone.up.",
        "backbone.norm",
        "backbone.level_embed",
        "neck.",
        "head.",
    )
    others = {name: value for name, value in named.items() if name.startswith(new)}
    assert len(set(others.values())) == 1 and others["head.convs.0.weight"] == pytest.approx(
        1.41421356e-4, rel=1e-5
    )
    assert len(others) + 3 + 1 + 4 * 14 == len(named)


@pytest.mark.parametrize(
    "temperature, expected",
    [
        (0.05, [3.4308e-6, 0.0017095, 0.2459579, 0.7523291]),
        (0.01, [1.96e-27, 6.04e-14, 0.0037209, 0.9962791]),
    ],
)
def test_rare_classes_by_temperature(temperature, expected):
    counts = np.diag([100.0, 50, 10, 1])
    draw = sampling.make("rare_class", counts, 0, temperature=temperature)
    assert np.diff(draw.cumulative, prepend=0) == pytest.approx(expected, rel=1e-4, abs=1e-12)


# the step


def test_gradients_equal_the_published_recipe():
    method = with_foundation()
    data = batch()
    student = copy.deepcopy(method.model).train()
    head = copy.deepcopy(method.modules["feature_head"])
    teacher = copy.deepcopy(method.modules["teacher"]).train()
    foundation = method.references["foundation"]

    def view(images, stream, **how):
        return torch.stack(
            [
                strong_view(image, generator_of(0, stream, 0, n), **how)
                for n, image in enumerate(images)
            ]
        )

    def probabilities(network, images):
        return F.interpolate(
            network(images).logits, (32, 48), mode="bilinear", align_corners=True
        ).softmax(1)

    def loss_map(images, labels):
        logits = F.interpolate(
            student(images).logits, (32, 48), mode="bilinear", align_corners=True
        )
        return F.cross_entropy(logits, labels.long(), reduction="none")

    with torch.no_grad():
        mirrored = probabilities(teacher, data.target.flip(-1)).flip(-1)
        sure, guess = (0.5 * (probabilities(teacher, data.target) + mirrored)).max(1)
    method.settings = method.settings.model_copy(update={"confidence": float(sure.median()) - 1e-6})
    weight = torch.full_like(sure, float((sure >= method.settings.confidence).double().mean()))
    assert 0.4 < float(weight[0, 0, 0]) < 0.6
    pasted = torch.zeros_like(guess, dtype=torch.bool)
    for n, labels in enumerate(data.labels):
        present = labels.unique()
        order = torch.randperm(
            len(present), generator=generator_of(0, StepStream.PASTED_CLASSES, 0, n)
        )
        pasted[n] = torch.isin(labels, present[order[: (len(present) + 1) // 2]])
    weak = view(data.target, StepStream.WEAK_TARGET, **WEAK)
    mixed = torch.where(pasted[:, None], data.source, weak)
    uda = {"jitter": 0.2, "kind": "torchvision"}
    kept = torch.stack(
        [
            block_mask((32, 48), 8, 0.7, generator=generator_of(0, StepStream.MASKS, 0, n))
            for n in range(2)
        ]
    )[:, None]
    changed = view(data.target, StepStream.MASKED_IMAGES, **uda)
    masked = torch.where(kept, changed.double(), method.model.normalise.mean)
    loss = loss_map(view(data.source, StepStream.STRONG_SOURCE, **STRONG), data.labels).mean()
    mix_loss = loss_map(
        view(mixed, StepStream.MIXED_IMAGES, **uda), torch.where(pasted, data.labels.long(), guess)
    )
    loss = loss + (torch.where(pasted, torch.ones_like(weight), weight) * mix_loss).mean()
    loss = loss + (weight * loss_map(masked, guess)).mean()
    for images, stream in (
        (data.source, StepStream.DISTILLED_SOURCE),
        (data.target, StepStream.DISTILLED_TARGET),
    ):
        reference = foundation(images)
        found = head(student(view(images, stream, **WEAK)).stages[-1], reference.shape[-2:])
        near = F.smooth_l1_loss(found, reference, reduction="none").mean(1)
        loss = loss + 0.1 * (0.1 * near + 0.9 * (1 - F.cosine_similarity(found, reference))).mean()
    loss.backward()
    terms = method.step(data)
    assert set(terms) == {"seg", "self_training", "masked", "distil_source", "distil_target"}
    assert float(sum(terms.values()).detach()) == pytest.approx(float(loss.detach()), rel=1e-6)
    expected = {
        f"model.{name}": p.grad for name, p in student.named_parameters() if p.requires_grad
    }
    for name, gradient in gradients(method).items():
        torch.testing.assert_close(
            gradient,
            expected[name],
            rtol=1e-5,
            atol=1e-6 * float(expected[name].abs().max()),
            msg=name,
        )
    for ours, theirs in zip(
        method.modules["feature_head"].parameters(), head.parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8)


def test_what_is_off_is_not_there_and_mic_can_distil_too():
    plain = make("vfmuda", False, mask_block=8, lambda_distil_source=0, lambda_distil_target=0)
    assert set(plain.modules) == {"teacher"} and set(plain.step(batch())) == {
        "seg",
        "self_training",
        "masked",
    }
    assert not set(make("mic", False, mask_block=8, lambda_fd=0).modules) - {"teacher"}
    mic = make("mic", False, mask_block=8, lambda_fd=0.0, lambda_distil_target=0.1, **FOUNDATION)
    assert "distil_target" in mic.step(batch()) and "distil_source" not in mic.step(batch())
    assert mic.head_parameters() == [*mic.modules["feature_head"].parameters()]


def test_a_foundation_model_that_cannot_be_had_is_refused_before_work(tmp_path):
    settings = method_class("vfmuda").Settings
    model = Segmenter(5, "resnet18", width=8)
    with pytest.raises(
        UsageError, match="methods.vfmuda.distil_model: timm has no model 'vit_tinny'"
    ):
        method_class("vfmuda").check(
            settings(name="vfmuda", distil_model="timm:vit_tinny"), model, None, target=None
        )
    for name in ("timm:vit_tiny_patch16_224", "vit_tiny_patch16_224"):
        wanted = settings(
            name="vfmuda", distil_model=name, distil_weights=str(tmp_path / "none.pth")
        )
        with pytest.raises(FgdaError, match="no weight file"):
            method_class("vfmuda").check(wanted, model, None, target=None)


def test_a_random_foundation_is_its_seeds_alone_and_a_cnn_gives_its_last_map():
    images = batch().source[:1, :, :, :40].repeat(1, 1, 1, 2)
    before = torch.random.get_rng_state()
    one, two, other = (load_foundation(VIT, "none", 1.0, seed=seed).eval() for seed in (3, 3, 4))
    with torch.no_grad():
        assert torch.equal(one(images), two(images)) and not torch.equal(one(images), other(images))
        assert one(images).shape == (1, 192, 2, 5)
        # the class token is the one left out
        assert one.net.forward_features(one.normalise(images)).shape[1] == 11
        assert load_foundation(VIT, "none", 0.5).eval()(images).shape == (1, 192, 1, 2)
        assert load_foundation("timm:resnet18", "none", 1.0).eval()(images).shape == (1, 512, 1, 2)
    assert torch.equal(before, torch.random.get_rng_state())


# hooks


def test_strong_views_of_four_strengths_and_without_colour():
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    grey = strong_view(
        image, generator_of(1), jitter=0.0, blur_share=0.0, kind="torchvision", grey_share=1.0
    )
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[1], grey[2])
    kwargs = {"blur_share": 0.0, "kind": "torchvision", "jitter_share": 1.0}
    assert torch.equal(
        *(strong_view(image, generator_of(7), jitter=j, **kwargs) for j in (0.3, (0.3,) * 4))
    )
    assert torch.equal(strong_view(image, generator_of(7), jitter=(0.0,) * 4, **kwargs), image)
    changed = strong_view(
        image, generator_of(7), jitter=(0.5, 0.0, 0.0, 0.0), **kwargs
    ).float() / image.clamp(min=1)
    # one factor for all pixels
    assert float(changed[(image > 40) & (image < 120)].std()) < 0.02


def test_crops_are_asked_for_both_conditions_at_once():
    rng = np.random.default_rng(0)
    label = np.zeros((40, 80), np.uint8)
    label[:, 60:] = 1
    label[20:30, 58:62] = 2
    boxes = [
        augment.varied_box(label, (20, 20), rng, most=0.75, wanted=2, least=20, tries=200)
        for _ in range(50)
    ]
    for box in boxes:
        counts = np.bincount(augment.cut(label, box, (20, 20)).ravel(), minlength=3)
        assert counts[2] > 20 and counts.max() < 300
    only = np.zeros((40, 80), np.uint8)
    boxes = [
        augment.varied_box(only, (20, 20), rng, most=0.75, wanted=1, least=5, tries=3)
        for _ in range(5)
    ]
    # the last is taken as it is
    assert len(set(boxes)) > 1


def test_the_samples_read_the_new_keys(data_root, tiny_preset):
    from fgda_cli.training.components import make_samples

    preset = tiny_preset(
        "data.rare_class_temperature=0.05", "data.crop_tries=20", "data.sampling=rare_class"
    )
    assert (preset.data.rare_class_temperature, preset.data.crop_tries) == (0.05, 20)
    source, target = (
        open_dataset(data_root, name) for name in ("playground-game", "playground-street")
    )
    data = type("Data", (), {"source": source, "target": target, "untrained": (), "labelled": None})
    samples = make_samples(preset, preset.adapt, data, method=method_class("vfmuda"))
    cold = make_samples(
        tiny_preset("data.sampling=rare_class"), preset.adapt, data, method=method_class("vfmuda")
    )
    assert samples.settings.crop_tries == 20
    assert not np.array_equal(samples.draw_source.cumulative, cold.draw_source.cumulative)
