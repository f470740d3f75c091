"""DINOv2 with a ViT-Adapter: published golden values, any size, and the whole network against a functional one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from fgda_cli.models.deformable import DeformableAttention, centres, sample
from fgda_cli.models.encoders import adapter
from fgda_cli.models.segmenter import Segmenter


def counted(*shape):
    return torch.arange(math.prod(shape), dtype=torch.float64).view(shape)


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found.detach().flatten(), torch.tensor(expected, dtype=found.dtype), rtol=0, atol=tolerance)


def published_state(shapes, scale=0.05):
    """A value for each tensor, by its published name."""
    state = {}
    for key, shape in shapes.items():
        number = sum(map(ord, key)) % 97
        base = 1.0 if key.endswith("running_var") or (len(shape) == 1 and key.endswith(".weight")) else 0.0
        state[key] = base + scale * torch.sin(0.7 * counted(*shape) + number)
    return state


@pytest.fixture(scope="module")
def tiny():
    """The network of the golden values in fp64, with its weights under the published names."""
    model = Segmenter(3, "adapter:tiny14", output_stride="native", multi_level=False, head="upscale", head_width=8,
                      align_corners=False).double()  # fmt: skip
    theirs = {"backbone.": "encoder.", "neck.": "upscale.", "head.convs.0.": "out."}
    names = {key: ours.replace(prefix, theirs[prefix], 1) for key, ours, prefix in (
        (key, key, next((p for p in theirs if key.startswith(p)), None)) for key in model.state_dict()) if prefix}  # fmt: skip
    own = model.state_dict()
    state = published_state({names[k]: own[k].shape for k in names if own[k].is_floating_point()})
    model.load_state_dict({key: state[name] for key, name in names.items() if name in state}, strict=False)
    return model, state, len(names)


def image():
    return torch.sin(0.011 * counted(2, 3, 224, 224))


def test_the_deformable_core_is_a_weighted_sum_of_bilinear_samples():
    """Point by point, in loops; the values are those of the published function too."""
    value = torch.sin(counted(1, 16, 3, 2))
    locations = 0.5 + 0.6 * torch.cos(1.7 * counted(1, 4, 3, 2, 2, 2))
    weights = torch.sin(0.9 * counted(1, 4, 3, 4) + 0.3).softmax(-1)
    sizes, expected = [(3, 4), (2, 2)], torch.zeros(1, 4, 6, dtype=torch.float64)
    for q, m, level, point in itertools.product(range(4), range(3), range(2), range(2)):
        (h, w), start = sizes[level], 12 * level
        x, y = (float(place) * side - 0.5 for place, side in zip(locations[0, q, m, level, point], (w, h), strict=True))
        for i, j in itertools.product(*((math.floor(place), math.floor(place) + 1) for place in (x, y))):
            if 0 <= i < w and 0 <= j < h:
                share = (1 - abs(x - i)) * (1 - abs(y - j)) * weights[0, q, m, 2 * level + point]
                expected[0, q, 2 * m : 2 * m + 2] += share * value[0, start + w * j + i, m]
    torch.testing.assert_close(sample(value, sizes, locations, weights), expected, rtol=0, atol=1e-12)
    close(expected[0, 0, :4], [0.0332576, -0.1138416, -0.1676, -0.1396912], 1e-4)


def test_the_deformable_module_is_the_published_one():
    layer = DeformableAttention(12, 2, 3, points=2).double()
    close(layer.sampling_offsets.bias[8:16], [-0.577350, 1, -1.154701, 2] * 2, 1e-6)
    close(layer.sampling_offsets.bias[:4], [1, 0, 2, 0], 1e-6)
    parameters = [getattr(getattr(layer, name), part) for name in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
                  for part in ("weight", "bias")]  # fmt: skip
    with torch.no_grad():
        for number, parameter in enumerate(parameters):
            parameter.copy_(0.3 * torch.sin(0.7 * counted(*parameter.shape) + number))
    queries, tokens = torch.cos(0.37 * counted(1, 6, 12)), torch.sin(0.53 * counted(1, 16, 12))
    found = layer(queries, tokens, [(3, 4), (2, 2)], centres([(2, 3)], queries))
    close(found[0, 0], [0.209519, 0.357346, 0.184247, 0.105561, -0.047451, -0.335016, -0.286524, -0.121423, -0.059914, 0.205490,
                        0.362654, 0.184909], 1e-6)  # fmt: skip
    close(found.sum(), [4.560759], 1e-6)
    close(found.abs().mean(), [0.220603], 1e-6)


def test_positions_are_enlarged_as_published():
    encoder = adapter.AdapterEncoder(64, 4)
    encoder.pos_embed = torch.nn.Parameter(torch.cos(0.3 * counted(1, 10, 2)))
    found = encoder.positions((4, 4))[0]
    close(found[[0, 1, 2, 5, 11, 16]], [1.0, 0.955336, 0.979327, 0.780899, 0.720543, 0.448403, -0.121454, -0.357163, -0.706366,
                                        -0.532636, 0.719251, 0.916379], 1e-6)  # fmt: skip


def test_the_whole_network_is_the_published_one(tiny):
    model, _, entries = tiny
    assert entries == 335
    model.eval()
    with torch.no_grad():
        f1, f2, f3, f4 = stages = model.backbone.stages(image(), image())
        neck = model.neck(stages)
        logits = model.head(neck)
    for found, side, mean, first, last in (
        (f1, 56, 0.177760, [-0.009809, -0.012540, 0.029980], [-0.276104, -0.290429]),
        (f2, 28, 0.390055, [0.429647, 0.425779, 0.124132], [-0.465138, -0.316313]),
        (f3, 14, 1.152386, [0.778655, 1.727751, 2.470425], [-0.774728, -1.086551]),
        (f4, 7, 6.230698, [3.452172, 25.037988, 23.700436], [-0.572978, -0.050855]),
    ):
        assert found.shape == (2, 64, side, side)
        close(found.abs().mean(), [mean])
        close(found[0, 0, 0, :3], first)
        close(found[1, -1, -1, -2:], last)
    assert neck.shape == (2, 8, 56, 56)
    close(neck.abs().mean(), [0.033441])
    close(neck[0, 0, 0, :3], [0.014115, 0.026757, 0.025684])
    close(logits[0, :, 10, 20], [0.00062291, -0.00633885, -0.01045531], 1e-7)
    close(logits[1, :, 55, 55], [0.00224922, -0.00429400, -0.00890978], 1e-7)


def test_training_and_its_running_statistics_are_the_published_ones(tiny):
    import copy

    model = copy.deepcopy(tiny[0]).train()
    with torch.no_grad():
        f1, f2, f3, f4 = stages = model.backbone.stages(image(), image())
        logits = model.head(model.neck(stages))
    for found, mean, first in (
        (f1, 0.792183, [-0.436934, -0.447594, -0.151931]),
        (f2, 0.772605, [-0.399320, -0.602459, -1.422360]),
        (f3, 0.804164, [-0.722571, -1.489917, -1.284056]),
        (f4, 0.789752, [0.305591, 2.067925, 0.798187]),
    ):
        close(found.abs().mean(), [mean])
        close(found[0, 0, 0, :3], first)
    close(logits[0, :, 10, 20], [0.00066685, -0.00637047, -0.01054829], 1e-7)
    close(model.backbone.norm4.running_mean[:3], [0.0487802, 0.0432111, 0.0203374], 1e-6)
    close(model.backbone.norm4.running_var[:3], [0.9524574, 0.9415550, 0.9539831], 1e-6)


def test_an_image_of_another_size_is_resized_and_its_logits_back(tiny):
    model = tiny[0].eval()
    whole = F.interpolate(image()[..., :200, :200], (224, 224), mode="bilinear", align_corners=False)
    with torch.no_grad():
        logits = F.interpolate(model.head(model.neck(model.backbone.stages(whole, whole))), (200, 200), mode="bilinear")
    close(logits[0, :, 17, 150], [0.00064483, -0.00634077, -0.01048021], 1e-7)


def test_the_encoder_enlarges_by_35_to_32_and_takes_any_size(tiny):
    model = tiny[0].eval()
    seen = []
    hook = model.backbone.register_forward_pre_hook(lambda module, inputs: None)
    hook.remove()
    with torch.no_grad():
        assert [f.shape[-2:] for f in model.backbone(torch.zeros(1, 3, 1024, 64, dtype=torch.float64))] == [
            (280, 16), (140, 8), (70, 4), (35, 2)]  # fmt: skip
        for size in ((96, 160), (33, 250)):
            finest = model.backbone(torch.zeros(1, 3, *size, dtype=torch.float64))[0]
            seen.append(tuple(finest.shape[-2:]))
    assert seen == [(24, 40), (8, 72)]  # 105 x 175 pixels as 96 x 160 or 112 x 192 would be; multiples of 32
