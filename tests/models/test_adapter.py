"""DINOv2 with a ViT-Adapter: published golden values, any size, and the whole network against a
functional one.
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fgda_cli.models import checkpoint
from fgda_cli.models.encoders import adapter
from fgda_cli.models.encoders.adapter import DeformableAttention, centres, sample
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.models.weights import load_backbone
from fgda_cli.runtime.errors import FgdaError
from fgda_cli.studies.zoo import import_checkpoint
from fgda_cli.training import stages
from tests.helpers import IMAGENET, QUIET, crash_at, fgda, random_state, same


def counted(*shape):
    return torch.arange(math.prod(shape), dtype=torch.float64).view(shape)


def close(found, expected, tolerance=1e-5):
    expected = torch.as_tensor(expected, dtype=found.dtype)
    torch.testing.assert_close(found.detach().flatten(), expected.flatten(), rtol=0, atol=tolerance)


def published_state(shapes, scale=0.05):
    """A value for each tensor, by its published name."""
    state = {}
    for key, shape in shapes.items():
        number = sum(map(ord, key)) % 97
        base = (
            1.0
            if key.endswith("running_var") or (len(shape) == 1 and key.endswith(".weight"))
            else 0.0
        )
        state[key] = base + scale * torch.sin(0.7 * counted(*shape) + number)
    return state


@pytest.fixture(scope="module")
def tiny():
    """The network of the golden values in fp64, with its weights under the published names."""
    model = Segmenter(
        3,
        "adapter:tiny14",
        output_stride="native",
        multi_level=False,
        head="upscale",
        head_width=8,
        align_corners=False,
    ).double()
    theirs = {"backbone.": "encoder.", "neck.": "upscale.", "head.convs.0.": "out."}
    names = {
        key: ours.replace(prefix, theirs[prefix], 1)
        for key, ours, prefix in (
            (key, key, next((p for p in theirs if key.startswith(p)), None))
            for key in model.state_dict()
        )
        if prefix
    }
    own = model.state_dict()
    state = published_state({names[k]: own[k].shape for k in names if own[k].is_floating_point()})
    model.load_state_dict(
        {key: state[name] for key, name in names.items() if name in state}, strict=False
    )
    return model, state, len(names)


def image():
    return torch.sin(0.011 * counted(2, 3, 224, 224))


def test_the_deformable_core_is_a_weighted_sum_of_bilinear_samples():
    """Point by point, in loops; the values are those of the published function too."""
    value = torch.sin(counted(1, 16, 3, 2))
    locations = 0.5 + 0.6 * torch.cos(1.7 * counted(1, 4, 3, 2, 2, 2))
    weights = torch.sin(0.9 * counted(1, 4, 3, 4) + 0.3).softmax(-1)
    sizes = [(3, 4), (2, 2)]
    expected = torch.zeros(1, 4, 6, dtype=torch.float64)
    for q, m, level, point in itertools.product(range(4), range(3), range(2), range(2)):
        h, w = sizes[level]
        start = 12 * level
        x, y = (
            float(place) * side - 0.5
            for place, side in zip(locations[0, q, m, level, point], (w, h), strict=True)
        )
        for i, j in itertools.product(
            *((math.floor(place), math.floor(place) + 1) for place in (x, y))
        ):
            if 0 <= i < w and 0 <= j < h:
                share = (1 - abs(x - i)) * (1 - abs(y - j)) * weights[0, q, m, 2 * level + point]
                expected[0, q, 2 * m : 2 * m + 2] += share * value[0, start + w * j + i, m]
    torch.testing.assert_close(
        sample(value, sizes, locations, weights=weights), expected, rtol=0, atol=1e-12
    )
    close(expected[0, 0, :4], [0.0332576, -0.1138416, -0.1676, -0.1396912], 1e-4)


def test_the_deformable_module_is_the_published_one():
    layer = DeformableAttention(12, 2, 3, points=2).double()
    close(layer.sampling_offsets.bias[8:16], [-0.577350, 1, -1.154701, 2] * 2, 1e-6)
    close(layer.sampling_offsets.bias[:4], [1, 0, 2, 0], 1e-6)
    layers = (layer.sampling_offsets, layer.attention_weights, layer.value_proj, layer.output_proj)
    parameters = [parameter for part in layers for parameter in (part.weight, part.bias)]
    with torch.no_grad():
        for number, parameter in enumerate(parameters):
            parameter.copy_(0.3 * torch.sin(0.7 * counted(*parameter.shape) + number))
    queries = torch.cos(0.37 * counted(1, 6, 12))
    tokens = torch.sin(0.53 * counted(1, 16, 12))
    found = layer(queries, tokens, [(3, 4), (2, 2)], centres([(2, 3)], queries))
    close(
        found[0, 0],
        [
            0.209519,
            0.357346,
            0.184247,
            0.105561,
            -0.047451,
            -0.335016,
            -0.286524,
            -0.121423,
            -0.059914,
            0.205490,
            0.362654,
            0.184909,
        ],
        1e-6,
    )
    close(found.sum(), [4.560759], 1e-6)
    close(found.abs().mean(), [0.220603], 1e-6)


def test_positions_are_enlarged_as_published():
    encoder = adapter.AdapterEncoder(64, 4)
    encoder.pos_embed = torch.nn.Parameter(torch.cos(0.3 * counted(1, 10, 2)))
    found = encoder.positions((4, 4))[0]
    close(
        found[[0, 1, 2, 5, 11, 16]],
        [
            1.0,
            0.955336,
            0.979327,
            0.780899,
            0.720543,
            0.448403,
            -0.121454,
            -0.357163,
            -0.706366,
            -0.532636,
            0.719251,
            0.916379,
        ],
        1e-6,
    )


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
    whole = F.interpolate(
        image()[..., :200, :200], (224, 224), mode="bilinear", align_corners=False
    )
    with torch.no_grad():
        logits = F.interpolate(
            model.head(model.neck(model.backbone.stages(whole, whole))), (200, 200), mode="bilinear"
        )
    close(logits[0, :, 17, 150], [0.00064483, -0.00634077, -0.01048021], 1e-7)


# a functional network of the published names, any size


def norm2d(s, x, name):
    return F.batch_norm(
        x, *(s[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    )


def linear(s, x, name):
    return F.linear(x, s[f"{name}.weight"], s[f"{name}.bias"])


def layer_norm(s, x, name, eps):
    return F.layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"], eps)


def conv(s, x, name, **how):
    return F.conv2d(x, s[f"{name}.weight"], s.get(f"{name}.bias"), **how)


def tokens_of(x):
    return x.flatten(2).transpose(1, 2)


def deformable(s, queries, tokens, sizes, reference, name, heads=1, points=4):
    """All levels' samples stacked, times their weights: the published order, plainly."""
    n, q, _ = queries.shape
    levels = len(sizes)
    value = linear(s, tokens, f"{name}.value_proj").view(n, -1, heads, 32)
    offsets = linear(s, queries, f"{name}.sampling_offsets").view(n, q, heads, levels, points, 2)
    weights = linear(s, queries, f"{name}.attention_weights").view(n, q, heads, -1).softmax(-1)
    samples = []
    start = 0
    for level, (h, w) in enumerate(sizes):
        maps = value[:, start : start + h * w].permute(0, 2, 3, 1).reshape(n * heads, 32, h, w)
        start += h * w
        places = reference[None, :, None, None] + offsets[:, :, :, level] / torch.tensor(
            [w, h], dtype=queries.dtype
        )
        grid = (2 * places - 1).permute(0, 2, 1, 3, 4).reshape(n * heads, q, points, 2)
        samples.append(F.grid_sample(maps, grid, align_corners=False))
    weighted = torch.cat(samples, -1) * weights.permute(0, 2, 1, 3).reshape(n * heads, 1, q, -1)
    return linear(s, weighted.sum(-1).view(n, heads * 32, q).transpose(1, 2), f"{name}.output_proj")


def extract(s, c, x, own, size, reference, name):
    queries = layer_norm(s, c, f"{name}.query_norm", eps=1e-5)
    feats = layer_norm(s, x, f"{name}.feat_norm", eps=1e-5)
    c = c + deformable(s, queries, feats, sizes=[size], reference=reference, name=f"{name}.attn")
    inner = linear(s, layer_norm(s, c, f"{name}.ffn_norm", eps=1e-5), f"{name}.ffn.fc1")
    maps = []
    start = 0
    for h, w in own:
        part = inner[:, start : start + h * w].transpose(1, 2).view(len(c), -1, h, w)
        start += h * w
        maps.append(
            tokens_of(conv(s, part, f"{name}.ffn.dwconv.dwconv", padding=1, groups=part.shape[1]))
        )
    return c + linear(s, F.gelu(torch.cat(maps, 1)), f"{name}.ffn.fc2")


def block(s, x, name, heads=1):
    n, length, width = x.shape
    qkv = linear(s, layer_norm(s, x, f"{name}.norm1", eps=1e-6), f"{name}.attn.qkv").view(
        n, length, 3, heads, -1
    )
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    y = ((q @ k.transpose(-1, -2)) / (width / heads) ** 0.5).softmax(-1) @ v
    x = x + s[f"{name}.ls1.gamma"] * linear(
        s, y.transpose(1, 2).reshape(n, length, width), f"{name}.attn.proj"
    )
    y = F.gelu(linear(s, layer_norm(s, x, f"{name}.norm2", eps=1e-6), f"{name}.mlp.fc1"))
    return x + s[f"{name}.ls2.gamma"] * linear(s, y, f"{name}.mlp.fc2")


def published(s, vit_image, spm_image):
    """Logits of normalised images by the tensors' published names, four blocks, one head."""
    e = {
        key.removeprefix("encoder."): value
        for key, value in s.items()
        if key.startswith("encoder.")
    }
    x = F.conv2d(spm_image, e["spm.stem.0.weight"], stride=2, padding=1)
    x = F.relu(norm2d(e, x, "spm.stem.1"))
    for n in (3, 6):
        x = F.relu(norm2d(e, conv(e, x, f"spm.stem.{n}", padding=1), f"spm.stem.{n + 1}"))
    priors = [F.max_pool2d(x, 3, 2, 1)]
    for n in (2, 3, 4):
        priors.append(
            F.relu(
                norm2d(
                    e, conv(e, priors[-1], f"spm.conv{n}.0", stride=2, padding=1), f"spm.conv{n}.1"
                )
            )
        )
    c1, *maps = (conv(e, part, f"spm.fc{n}") for n, part in enumerate(priors, 1))
    own = [tuple(part.shape[-2:]) for part in maps]
    c = torch.cat([tokens_of(part) + e["level_embed"][n] for n, part in enumerate(maps)], 1)
    patches = conv(e, vit_image, "patch_embed.proj", stride=14)
    size = tuple(patches.shape[-2:])
    stored = e["pos_embed"]
    grid = stored[:, 1:].view(1, 37, 37, -1).permute(0, 3, 1, 2).float()
    grid = F.interpolate(
        grid, scale_factor=[(side + 0.1) / 37 for side in size], mode="bicubic"
    ).to(stored.dtype)
    x = tokens_of(patches) + tokens_of(grid)
    cls = (e["cls_token"] + stored[:, :1]).expand(len(patches), -1, -1)

    def middles(sizes):
        cells = [
            ((j + 0.5) / w, (i + 0.5) / h) for h, w in sizes for i in range(h) for j in range(w)
        ]
        return torch.tensor(cells, dtype=stored.dtype)

    outputs = []
    for k in range(4):
        name = f"interactions.{k}"
        queries = layer_norm(e, x, f"{name}.injector.query_norm", eps=1e-5)
        feats = layer_norm(e, c, f"{name}.injector.feat_norm", eps=1e-5)
        x = x + e[f"{name}.injector.gamma"] * deformable(
            e, queries, feats, sizes=own, reference=middles([size]), name=f"{name}.injector.attn"
        )
        x = block(e, torch.cat([cls, x], 1), f"blocks.{k}")
        cls = x[:, :1]
        x = x[:, 1:]
        more = ("extra_extractors.0", "extra_extractors.1") if k == 3 else ()
        for part in ("extractor", *more):
            c = extract(e, c, x, own=own, size=size, reference=middles(own), name=f"{name}.{part}")
        outputs.append(x.transpose(1, 2).view(len(x), -1, *size))
    parts = c.split([h * w for h, w in own], 1)
    c2, c3, c4 = (
        part.transpose(1, 2).view(len(c), -1, h, w) for part, (h, w) in zip(parts, own, strict=True)
    )
    c1 = c1 + F.conv_transpose2d(c2, e["up.weight"], e["up.bias"], stride=2)
    f = [
        norm2d(e, part + F.interpolate(output, part.shape[-2:], mode="bilinear"), f"norm{n}")
        for n, (part, output) in enumerate(zip((c1, c2, c3, c4), outputs, strict=True), 1)
    ]
    u = f[3]
    s = {
        key.removeprefix("upscale."): value
        for key, value in s.items()
        if not key.startswith("encoder.")
    }
    for n, finer in ((1, f[2]), (2, f[1]), (3, f[0])):
        u = F.conv_transpose2d(u, s[f"up_conv{n}.weight"], s[f"up_conv{n}.bias"], stride=2) + conv(
            s, finer, f"reduce_conv{n}"
        )
        u = F.relu(norm2d(s, conv(s, u, f"smooth_conv{n}", padding=1), f"norm{n}"))
    return conv(s, conv(s, u, "smooth_conv4", padding=1), "out")


@pytest.fixture(scope="module")
def published_file(tmp_path_factory):
    """A file as published, of the tiny network and 19 classes: student, teacher, feature head; and
    the student's tensors.
    """
    shapes = {
        key: value.shape
        for key, value in (
            Segmenter(
                19,
                "adapter:tiny14",
                output_stride="native",
                multi_level=False,
                head="upscale",
                head_width=8,
            )
            .state_dict()
            .items()
        )
        if not key.startswith("normalise.")
    }
    names = {
        key: (
            key.replace("backbone.", "encoder.")
            .replace("neck.", "upscale.")
            .replace("head.convs.0.", "out.")
        )
        for key in shapes
    }
    student, teacher = (
        random_state({names[key]: shape for key, shape in shapes.items()}) for _ in range(2)
    )
    teacher["out.weight"] = -teacher["out.weight"]
    content = {f"network.{key}": value for key, value in student.items()}
    content |= {f"network_ema.{key}": value for key, value in teacher.items()}
    content["network_feature_head.feat_project.0.weight"] = torch.zeros(4, 64, 1, 1)
    path = tmp_path_factory.mktemp("published") / "model.ckpt"
    torch.save({"state_dict": content, "global_step": 40000}, path)
    return path, {
        key: value.double() if value.is_floating_point() else value
        for key, value in student.items()
    }


@pytest.mark.parametrize(
    "size, vit, spm",
    [((1, 3, 256, 256), (280, 280), (288, 288)), ((2, 3, 90, 205), (98, 224), (96, 224))],
)
def test_a_published_file_computes_what_a_functional_network_computes(
    published_file, size, vit, spm, tmp_path
):
    path, student = published_file
    checkpoint.save(tmp_path / "ours.pth", import_checkpoint(path, "auto"))
    model, info = checkpoint.load_model(tmp_path / "ours.pth")
    images = torch.randint(0, 256, size, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mean, std = IMAGENET
    normalised = ((images / 255 - mean) / std).double()
    expected = published(
        student, *(F.interpolate(normalised, side, mode="bilinear") for side in (vit, spm))
    )
    with torch.no_grad():
        close(model.double()(images).logits, expected, 1e-6 * float(expected.abs().max()))
    assert (
        info["method"] == "vfmuda" and info["size"] == (2048, 1024) and len(info["classes"]) == 19
    )
    assert info["preset"]["model"]["head_width"] == 8


def test_the_teacher_is_read_where_it_is_asked_for(published_file, tmp_path):
    path, student = published_file
    done = fgda("import", path, "--out", tmp_path / "teacher.pth", "--format", "vfmuda-teacher")
    assert done.returncode == 0 and "vfmuda-teacher, adapter:tiny14, 19 classes" in done.stdout, (
        done.stderr
    )
    assert "--sliding 1024x1024 --overlap 0.5 --blend mean" in done.stderr
    head = checkpoint.load(tmp_path / "teacher.pth")["model"]["head.convs.0.weight"]
    torch.testing.assert_close(head.double(), -student["out.weight"])
    torch.save(
        {"state_dict": {f"network.{key}": value for key, value in student.items()}},
        tmp_path / "trimmed.ckpt",
    )
    with pytest.raises(FgdaError, match="no tensors under 'network_ema.'"):
        import_checkpoint(tmp_path / "trimmed.ckpt", "vfmuda-teacher")


def test_adapter_and_dinov2_files_are_starts(published_file, tmp_path):
    path, student = published_file
    encoder = {key: value for key, value in student.items() if key.startswith("encoder.")}
    content = {f"network.{key}": value for key, value in encoder.items()} | {
        "network.head.weight": torch.zeros(3)
    }
    torch.save({"state_dict": content}, tmp_path / "in1k.ckpt")
    whole, vit = (
        adapter.build("adapter:tiny14", "torchvision", "native", width=64) for _ in range(2)
    )
    load_backbone(
        whole,
        "adapter:tiny14",
        "torchvision",
        weights=str(tmp_path / "in1k.ckpt"),
        output_stride="native",
    )
    assert all(
        torch.equal(value.double(), encoder[f"encoder.{key}"].double())
        for key, value in whole.state_dict().items()
    )
    dino = {key.removeprefix("encoder."): value for key, value in encoder.items()}
    dino = {key: value for key, value in dino.items() if key in vit.layer_depths()} | {
        "norm.weight": torch.ones(64)
    }
    torch.save(dino, tmp_path / "dinov2.pth")
    load_backbone(
        vit,
        "adapter:tiny14",
        "torchvision",
        weights=str(tmp_path / "dinov2.pth"),
        output_stride="native",
    )
    assert torch.equal(
        vit.blocks[2].attn.qkv.weight.double(), dino["blocks.2.attn.qkv.weight"].double()
    )
    assert not vit.interactions[0].injector.gamma.any() and not torch.equal(
        vit.level_embed, whole.level_embed
    )
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(FgdaError, match="neither an adapter nor DINOv2's ViT"):
        load_backbone(
            vit,
            "adapter:tiny14",
            "torchvision",
            weights=str(tmp_path / "other.pth"),
            output_stride="native",
        )


def test_weights_that_cannot_be_downloaded_say_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setattr(
        adapter.timm_family,
        "_download",
        lambda hub_id, file: (_ for _ in ()).throw(OSError("no network")),
    )
    with pytest.raises(FgdaError, match="tue-mps/vfmuda_plusplus_base_in1k_pretraining") as caught:
        adapter.locate("adapter:vitb14", "imagenet", tmp_path)
    file = tmp_path / "dinov2_base_with_vitadapter_pretraining_in1k_step50000.ckpt"
    assert str(file) in str(caught.value)
    file.touch()
    assert adapter.locate("adapter:vitb14", "imagenet", tmp_path) == file
    with pytest.raises(FgdaError, match="vit_base_patch14_dinov2.safetensors"):
        adapter.locate("adapter:vitb14", "dinov2", tmp_path)
    with pytest.raises(FgdaError, match="no imagenet weights are known for adapter:tiny14"):
        adapter.locate("adapter:tiny14", "imagenet", tmp_path)


@pytest.mark.parametrize(
    "name, settings, why",
    [
        ("adapter:vitg14", {}, "no size 'vitg14'"),
        ("adapter:tiny14", {"drop_path": 0.1}, "model.drop_path do nothing"),
        ("adapter:tiny14", {"output_stride": 8}, "set model.output_stride to native"),
    ],
)
def test_settings_that_an_adapter_cannot_have_are_refused(name, settings, why):
    with pytest.raises(ValueError, match=why):
        Segmenter(3, name, **{"output_stride": "native"} | settings)
    with pytest.raises(ValueError, match="stages at strides 4, 8, 16 and 32, not 4, 8, 8, 8"):
        Segmenter(3, "resnet18", head="upscale")


@pytest.mark.parametrize(
    "size, entries, numbers",
    [("vits14", 447, 27_389_453), ("vitb14", 447, None), ("vitl14", 615, None)],
)
def test_sizes_are_the_published_ones(size, entries, numbers):
    with torch.device("meta"):
        channels = adapter.SIZES[size][0]
        model = Segmenter(
            19,
            f"adapter:{size}",
            output_stride="native",
            multi_level=False,
            head="upscale",
            head_width=channels // 8,
        )
    state = {
        key: value for key, value in model.state_dict().items() if not key.startswith("normalise.")
    }
    assert len(state) == entries and numbers in (
        None,
        sum(value.numel() for value in state.values()),
    )


def test_activations_may_be_computed_twice_though_its_norms_train(tiny):
    def gradient(twice):
        model = copy.deepcopy(tiny[0]).train()
        model.backbone.checkpoint_activations = twice
        model(image()[:, :, :64, :64]).logits.square().sum().backward()
        return model.backbone.blocks[0].attn.qkv.weight.grad, model.backbone.norm1.running_mean

    for one, two in zip(gradient(False), gradient(True), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


SETS = (
    "model.backbone=adapter:tiny14",
    "model.width=64",
    "model.output_stride=native",
    "model.head=upscale",
    "model.head_width=8",
    "model.align_corners=false",
    "adapt.start=backbone",
    "adapt.batch_norm=train",
    "adapt.iterations=3",
    "optim.kind=adamw",
    "optim.lr=1e-3",
    "optim.layer_decay=0.9",
    "method.name=vfmuda",
)


def test_it_trains_and_resumes_bit_identically(data_root, tiny_preset, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    job = stages.Job(tiny_preset(*SETS), data_root, tmp_path / "one", device="cpu", reporter=QUIET)
    whole = stages.adapt(job, None)
    parts = replace(job, out=tmp_path / "parts")
    crash_at(monkeypatch, 2, lambda: stages.adapt(parts, None))
    assert same(whole, stages.adapt(parts, None))
    weights = checkpoint.load(whole)["model"]
    # the transformer begins to read the maps
    assert weights["backbone.interactions.0.injector.gamma"].any()


def test_its_export_decides_as_torch_does(published_file, tmp_path):
    """A trace; ONNX and OpenVINO: tests/trust/exports.py."""
    checkpoint.save(tmp_path / "ours.pth", import_checkpoint(published_file[0], "auto"))
    done = fgda("export", tmp_path / "ours.pth", "--out", tmp_path / "model.pt", "--size", "160x96")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.pt").is_file() and "100.00 %" in done.stdout, done.stdout


def test_the_encoder_enlarges_by_35_to_32_and_takes_any_size(tiny):
    """105 x 175 pixels are 112 x 168 for the transformer's patches and 96 x 160 or 192 for the
    maps'.
    """
    model = tiny[0].eval()
    strides = (4, 8, 16, 32)
    for size, spm in (
        ((1024, 64), (1120, 64)),
        ((96, 160), (96, 160)),
        ((33, 250), (32, 288)),
        ((8, 8), (32, 32)),
    ):
        with torch.no_grad():
            found = [
                tuple(part.shape[-2:])
                for part in model.backbone(torch.zeros(1, 3, *size, dtype=torch.float64))
            ]
        assert found == [tuple(side // stride for side in spm) for stride in strides]
