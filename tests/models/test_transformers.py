"""MiT and the heads that go with it, against plain functional implementations from the published
names.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from fgda_cli.data.geometry import InputRule
from fgda_cli.inference.export import Form, export
from fgda_cli.methods.optimizers import norms, refine
from fgda_cli.models import checkpoint, encoders
from fgda_cli.models.encoders import mit
from fgda_cli.models.heads import DaformerNeck, SegformerNeck
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.models.weights import load_backbone
from fgda_cli.runtime.errors import FgdaError, UsageError
from fgda_cli.settings import Model, Optim
from fgda_cli.studies.zoo import import_checkpoint
from tests.helpers import IMAGENET, close, fgda, needs, random_state

pytestmark = needs("transformers", "onnx")

WIDTHS = (32, 64, 160, 256)
DEPTHS = (2, 2, 2, 2)
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
IMAGES = torch.randint(0, 256, (1, 3, 64, 96), generator=torch.Generator().manual_seed(3)).float()


def mit_shapes():
    """MiT-B0 by NVIDIA's names."""
    shapes = {}
    inputs = 3

    def layer(name, outputs, inputs=None, kernel=None):
        weight = (
            (outputs,)
            if inputs is None
            else (outputs, inputs)
            if kernel is None
            else (outputs, inputs, kernel, kernel)
        )
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = (outputs,)

    for n, (width, depth, reduction) in enumerate(zip(WIDTHS, DEPTHS, REDUCTIONS, strict=True), 1):
        layer(f"patch_embed{n}.proj", width, inputs, kernel=7 if n == 1 else 3)
        layer(f"patch_embed{n}.norm", width)
        for b in range(depth):
            name = f"block{n}.{b}"
            layer(f"{name}.norm1", width)
            layer(f"{name}.attn.q", width, width)
            layer(f"{name}.attn.kv", 2 * width, width)
            layer(f"{name}.attn.proj", width, width)
            if reduction > 1:
                layer(f"{name}.attn.sr", width, width, kernel=reduction)
                layer(f"{name}.attn.norm", width)
            layer(f"{name}.norm2", width)
            layer(f"{name}.mlp.fc1", 4 * width, width)
            layer(f"{name}.mlp.dwconv.dwconv", 4 * width, 1, kernel=3)
            layer(f"{name}.mlp.fc2", width, 4 * width)
        layer(f"norm{n}", width)
        inputs = width
    return shapes


def norm(s, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"], eps)


def linear(s, name, x):
    return F.linear(x, s[f"{name}.weight"], s[f"{name}.bias"])


def plain_mit(s, x):
    found = []
    for n, (width, depth, heads, reduction) in enumerate(
        zip(WIDTHS, DEPTHS, HEADS, REDUCTIONS, strict=True), 1
    ):
        stride, padding = (4, 3) if n == 1 else (2, 1)
        x = F.conv2d(
            x, s[f"patch_embed{n}.proj.weight"], s[f"patch_embed{n}.proj.bias"], stride, padding
        )
        batch, _, height, wide = x.shape
        t = norm(s, f"patch_embed{n}.norm", x.flatten(2).transpose(1, 2), eps=1e-5)
        as_map = lambda t, c, h=height, w=wide: t.transpose(1, 2).reshape(-1, c, h, w)  # noqa: E731
        for b in range(depth):
            name = f"block{n}.{b}"
            y = norm(s, f"{name}.norm1", t, eps=1e-6)
            small = y
            if reduction > 1:
                m = F.conv2d(
                    as_map(y, width),
                    s[f"{name}.attn.sr.weight"],
                    s[f"{name}.attn.sr.bias"],
                    reduction,
                )
                small = norm(s, f"{name}.attn.norm", m.flatten(2).transpose(1, 2), eps=1e-5)
            split = lambda t, h=heads: t.reshape(1, -1, h, width // h).transpose(1, 2)  # noqa: E731, B023
            q = split(linear(s, f"{name}.attn.q", y))
            k, v = map(split, linear(s, f"{name}.attn.kv", small).chunk(2, -1))
            attention = (q @ k.transpose(-1, -2) * (width // heads) ** -0.5).softmax(-1) @ v
            t = t + linear(
                s, f"{name}.attn.proj", attention.transpose(1, 2).reshape(batch, -1, width)
            )
            y = linear(s, f"{name}.mlp.fc1", norm(s, f"{name}.norm2", t, eps=1e-6))
            weight, bias = (s[f"{name}.mlp.dwconv.dwconv.{part}"] for part in ("weight", "bias"))
            y = (
                F.conv2d(as_map(y, 4 * width), weight, bias, padding=1, groups=4 * width)
                .flatten(2)
                .transpose(1, 2)
            )
            t = t + linear(s, f"{name}.mlp.fc2", F.gelu(y))
        x = as_map(norm(s, f"norm{n}", t, eps=1e-6), width)
        found.append(x)
    return found


def mit_state():
    return {key: value * 0.7 for key, value in random_state(mit_shapes()).items()}


def test_mit_equals_a_plain_forward_from_the_published_names(tmp_path):
    state = mit_state()
    torch.save(state | {"head.weight": torch.zeros(1000, 256)}, tmp_path / "mit_b0.pth")
    net = encoders.family("mit:b0").build("mit:b0", "torchvision", "native", 64).eval()
    load_backbone(
        net, "mit:b0", "torchvision", weights=str(tmp_path / "mit_b0.pth"), output_stride="native"
    )
    with torch.no_grad():
        for ours, theirs in zip(net(IMAGES), plain_mit(state, IMAGES), strict=True):
            close(ours, theirs)
    assert sum(p.numel() for p in net.parameters()) == 3_319_392
    depths = net.layer_depths()
    assert depths.keys() == {name for name, _ in net.named_parameters()}
    assert depths["net.stages.0.patch_embeddings.proj.weight"] == 0 and max(depths.values()) == 8
    assert (
        depths["net.stages.1.blocks.0.attention.q_proj.weight"]
        == 3
        == depths["net.stages.1.blocks.0.mlp.fc1.bias"]
    )


def test_mit_b5_has_the_published_size():
    with torch.device("meta"):
        net = mit.build("mit:b5", "torchvision", "native", width=64)
    assert sum(p.numel() for p in net.parameters()) == 81_443_008 and net.channels == (
        64,
        128,
        320,
        512,
    )


def test_its_weights_are_never_downloaded(tmp_path):
    with pytest.raises(FgdaError, match=r"non-commercial use[\s\S]*put it at .*mit_b3\.pth"):
        mit.locate("mit:b3", "imagenet", tmp_path)
    with pytest.raises(UsageError, match="model.backbone: no encoder 'mit:b9'"):
        checkpoint.build_model(Model(backbone="mit:b9", output_stride="native"), 3)


def conv_norm_relu(s, name, x, **how):
    """By mmcv's names of a convolution module."""
    x = F.conv2d(x, s[f"{name}.conv.weight"], **how)
    bn = f"{name}.bn"
    return F.relu(
        F.batch_norm(
            x, s[f"{bn}.running_mean"], s[f"{bn}.running_var"], s[f"{bn}.weight"], s[f"{bn}.bias"]
        )
    )


def embedded(stages, layers):
    size = stages[0].shape[-2:]
    maps = [
        F.conv2d(x, weight[:, :, None, None], bias)
        for x, (weight, bias) in zip(stages, layers, strict=True)
    ]
    return torch.cat(
        [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in maps], 1
    )


def plain_daformer(s, stages, width):
    """By the published names under decode_head."""
    x = embedded(
        stages,
        [(s[f"embed_layers.{i}.proj.weight"], s[f"embed_layers.{i}.proj.bias"]) for i in range(4)],
    )
    found = [conv_norm_relu(s, "fuse_layer.aspp_modules.0", x)]
    for number, dilation in enumerate((6, 12, 18), 1):
        name = f"fuse_layer.aspp_modules.{number}"
        y = conv_norm_relu(
            s, f"{name}.depthwise_conv", x, padding=dilation, dilation=dilation, groups=4 * width
        )
        found.append(conv_norm_relu(s, f"{name}.pointwise_conv", y))
    x = conv_norm_relu(s, "fuse_layer.bottleneck", torch.cat(found, 1), padding=1)
    return F.conv2d(x, s["conv_seg.weight"], s["conv_seg.bias"])


def conv_shapes(shapes, name, outputs, inputs, kernel):
    shapes[f"{name}.conv.weight"] = (outputs, inputs, kernel, kernel)
    for part in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{name}.bn.{part}"] = (outputs,)
    shapes[f"{name}.bn.num_batches_tracked"] = ()


def daformer_shapes(width, classes):
    shapes = {}
    for i, channels in enumerate(WIDTHS):
        shapes[f"embed_layers.{i}.proj.weight"] = (width, channels)
        shapes[f"embed_layers.{i}.proj.bias"] = (width,)
    conv_shapes(shapes, "fuse_layer.aspp_modules.0", width, inputs=4 * width, kernel=1)
    for number in (1, 2, 3):
        conv_shapes(
            shapes,
            f"fuse_layer.aspp_modules.{number}.depthwise_conv",
            4 * width,
            inputs=1,
            kernel=3,
        )
        conv_shapes(
            shapes,
            f"fuse_layer.aspp_modules.{number}.pointwise_conv",
            width,
            inputs=4 * width,
            kernel=1,
        )
    conv_shapes(shapes, "fuse_layer.bottleneck", width, inputs=4 * width, kernel=3)
    return shapes | {"conv_seg.weight": (classes, width, 1, 1), "conv_seg.bias": (classes,)}


@pytest.mark.parametrize(
    "head", ["daformer", "segformer", "linear", "dpt", "fused", "pyramid", "aspp"]
)
@pytest.mark.parametrize(
    "backbone, stride", [("mit:b0", "native"), ("resnet18", 8), ("timm:test_vit", "native")]
)
def test_every_head_learns_on_every_kind_of_encoder(head, backbone, stride):
    torch.manual_seed(0)
    net = Segmenter(
        5,
        backbone,
        output_stride=stride,
        multi_level=True,
        head=head,
        head_width=16,
        dilations=(2,),
    )
    output = net.train()(torch.randint(0, 256, (2, 3, 64, 96)))
    assert output.logits.shape[:2] == (2, 5) == output.aux_logits.shape[:2]
    assert output.features.shape == (2, net.feature_channels, *output.logits.shape[-2:])
    (output.logits.square().sum() + output.aux_logits.square().sum()).backward()
    for name, parameter in net.named_parameters():
        if name.startswith(("neck.", "head.", "aux_head.")):
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_segformers_head_is_one_mix_of_four_embeddings():
    torch.manual_seed(0)
    net = Segmenter(
        5, "mit:b0", output_stride="native", multi_level=False, head="segformer", head_width=16
    ).eval()
    with torch.no_grad():
        stages = net.backbone(net.normalise(IMAGES))
        x = embedded(stages, [(p.weight[:, :, 0, 0], p.bias) for p in net.neck.embed.projections])
        convolution = net.neck.mix[0]
        bn = net.neck.mix[1]
        x = F.relu(
            F.batch_norm(
                F.conv2d(x, convolution.weight), bn.running_mean, bn.running_var, bn.weight, bn.bias
            )
        )
        close(net(IMAGES).logits, F.conv2d(x, net.head.convs[0].weight, net.head.convs[0].bias))


def test_dpt_makes_a_pyramid_of_a_vits_stages():
    torch.manual_seed(0)
    net = Segmenter(
        5, "timm:test_vit", output_stride="native", multi_level=False, head="dpt", head_width=8
    ).eval()
    neck = net.neck
    with torch.no_grad():
        stages = net.backbone(net.normalise(IMAGES))
        high, wide = stages[-1].shape[-2:]
        levels = []
        for projection, stage, scale in zip(
            neck.projections, stages[-4:], neck.scales, strict=True
        ):
            size = (max(1, round(high * scale)), max(1, round(wide * scale)))
            how = {"mode": "area"} if scale < 1 else {"mode": "bilinear", "align_corners": False}
            levels.append(F.conv2d(F.interpolate(stage, size, **how), projection.weight, padding=1))

        def residual(unit, x):
            first = unit.convs[1]
            second = unit.convs[3]
            y = F.conv2d(F.relu(x), first.weight, first.bias, padding=1)
            return x + F.conv2d(F.relu(y), second.weight, second.bias, padding=1)

        x = None
        for number in (3, 2, 1, 0):
            level = residual(neck.side[number], levels[number])
            if x is not None:
                level = level + F.interpolate(
                    x, level.shape[-2:], mode="bilinear", align_corners=False
                )
            x = residual(neck.down[number], level)
        found = net(IMAGES)
    close(found.features, x)
    assert found.logits.shape[-2:] == (4 * high, 4 * wide)


@pytest.mark.parametrize("whole_run", [True, False])
def test_a_daformer_file_is_its_student(tmp_path, whole_run):
    width = 24
    body = mit_state()
    head = random_state(daformer_shapes(width, 19))
    state = {f"backbone.{k}": v for k, v in body.items()} | {
        f"decode_head.{k}": v for k, v in head.items()
    }
    if whole_run:
        beside = {
            f"{name}.{k}": torch.zeros_like(v)
            for name in ("ema_model", "imnet_model")
            for k, v in state.items()
        }
        state = {f"model.{k}": v for k, v in state.items()} | beside
    torch.save({"meta": {"iter": 40000}, "state_dict": state}, tmp_path / "latest.pth")
    done = fgda("import", tmp_path / "latest.pth", "--out", tmp_path / "ours.pth")
    assert done.returncode == 0 and "daformer, mit:b0, 19 classes" in done.stdout, done.stderr
    model, info = checkpoint.load_model(tmp_path / "ours.pth")
    mean, std = IMAGENET
    with torch.no_grad():
        expected = plain_daformer(head, plain_mit(body, (IMAGES / 255 - mean) / std), width)
        close(model(IMAGES).logits, expected)
    assert (
        info["iteration"] == 40000
        and info["input"].resample == "linear"
        and not model.align_corners
    )
    again = fgda("evaluate", tmp_path / "ours.pth", "--data", "nowhere")
    # it is an ordinary checkpoint
    assert again.returncode == 1 and "nowhere" in again.stderr


@pytest.mark.parametrize("two_resolutions", [False, True])
def test_a_refign_file_is_its_student(tmp_path, two_resolutions):
    """DAFormer's network under Lightning's names; one of two resolutions is refused."""
    width = 24
    body = mit_state()
    head = random_state(daformer_shapes(width, 19))
    state = {f"backbone.{k}": v for k, v in body.items()} | {
        f"head.{k}": v for k, v in head.items()
    }
    state |= {f"m_{k}": torch.zeros_like(v) for k, v in state.items()}
    state["alignment_backbone.features.0.weight"] = torch.zeros(2)
    if two_resolutions:
        state["hrda_scale_attention.linear_pred.bias"] = torch.zeros(19)
    torch.save({"state_dict": state, "global_step": 40000}, tmp_path / "x.ckpt")
    done = fgda("import", tmp_path / "x.ckpt", "--out", tmp_path / "ours.pth")
    if two_resolutions:
        assert done.returncode == 1 and "a Refign network of two resolutions" in done.stderr
        return
    assert done.returncode == 0 and "refign, mit:b0, 19 classes" in done.stdout, done.stderr
    mean, std = IMAGENET
    model, info = checkpoint.load_model(tmp_path / "ours.pth")
    with torch.no_grad():
        expected = plain_daformer(head, plain_mit(body, (IMAGES / 255 - mean) / std), width)
        close(model(IMAGES).logits, expected)
    # ACDC's images at half of their size
    assert info["input"](1920, 1080) == (960, 540)


def test_other_mmsegmentation_files_are_one_line(tmp_path):
    state = {f"model.backbone.{k}": v for k, v in mit_state().items()}
    for extra, said in (
        ("decode_head.scale_attention.odd.weight", "head"),
        ("decode_head.odd.weight", "head"),
    ):
        torch.save(
            {"state_dict": state | {f"model.{extra}": torch.zeros(19, 4, 1, 1)}}, tmp_path / "x.pth"
        )
        done = fgda("import", tmp_path / "x.pth", "--out", tmp_path / "ours.pth")
        assert (
            done.returncode == 1
            and said in done.stderr
            and len(done.stderr.strip().splitlines()) == 1
        ), done.stderr


def hrda_file(width, classes=19):
    """(encoder, head, attention) and one state dict of HRDA's names."""
    body = mit_state()
    head = random_state(daformer_shapes(width, classes))
    shapes = {
        k: v for k, v in daformer_shapes(width, classes).items() if not k.startswith("fuse_layer")
    }
    conv_shapes(shapes, "fuse_layer", width, inputs=4 * width, kernel=1)
    attention = random_state(shapes)
    named = (
        ("backbone", body),
        ("decode_head.head", head),
        ("decode_head.scale_attention", attention),
    )
    return (
        body,
        head,
        attention,
        {f"model.{name}.{k}": v for name, part in named for k, v in part.items()},
    )


def plain_hrda(body, head, attention, images, width, window):
    """Context at half size; windows, half of one apart, averaged; their mix at a quarter of the
    image.
    """
    mean, std = IMAGENET
    x = (images / 255 - mean) / std
    up = lambda maps: F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)  # noqa: E731
    stages = plain_mit(
        body, F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
    )
    coarse = plain_daformer(head, stages, width)
    a = embedded(
        stages,
        [
            (attention[f"embed_layers.{i}.proj.weight"], attention[f"embed_layers.{i}.proj.bias"])
            for i in range(4)
        ],
    )
    a = conv_norm_relu(attention, "fuse_layer", a)
    a = torch.sigmoid(F.conv2d(a, attention["conv_seg.weight"], attention["conv_seg.bias"]))
    total = torch.zeros(1, 19, x.shape[2] // 4, x.shape[3] // 4)
    count = torch.zeros(total.shape[2:])
    for top in range(0, x.shape[2] - window + 1, window // 2):
        for left in range(0, x.shape[3] - window + 1, window // 2):
            part = plain_daformer(
                head, plain_mit(body, x[:, :, top : top + window, left : left + window]), width
            )
            rows, columns = (slice(start // 4, (start + window) // 4) for start in (top, left))
            total[:, :, rows, columns] += part
            count[rows, columns] += 1
    return up((1 - a) * coarse) + up(a) * total / count


def test_an_hrda_file_reads_context_and_detail(tmp_path, monkeypatch):
    width = 24
    body, head, attention, state = hrda_file(width)
    torch.save({"meta": {"iter": 40000}, "state_dict": state}, tmp_path / "latest.pth")
    done = fgda("import", tmp_path / "latest.pth", "--out", tmp_path / "ours.pth")
    assert (
        done.returncode == 0
        and "hrda, mit:b0, 19 classes" in done.stdout
        and "--sliding 1024x1024" in done.stderr
    ), done.stderr
    model, info = checkpoint.load_model(tmp_path / "ours.pth")
    assert model.detail == (512, 512) and info["input"].size == (2048, 1024)
    model.detail = (64, 64)
    images = torch.randint(
        0, 256, (1, 3, 128, 96), generator=torch.Generator().manual_seed(4)
    ).float()
    with torch.no_grad():
        close(
            model(images).logits,
            plain_hrda(body, head, attention, images=images, width=width, window=64),
        )
        # sides that 8 does not divide
        odd = model(images[..., :123, :90])
    assert odd.logits.shape[-2:] == (30, 22) and torch.isfinite(odd.logits).all()


@pytest.mark.parametrize(
    "damage", ["scalar", "no patch embedding", "odd keys", "flat head", "half of a kv"]
)
def test_damaged_transformer_files_are_one_line(tmp_path, damage):
    *_, state = hrda_file(8)
    if damage == "scalar":
        state = {key: torch.tensor(1.0) for key in state}
    elif damage == "no patch embedding":
        del state["model.backbone.patch_embed1.proj.weight"]
    elif damage == "odd keys":
        state = state | {3: torch.zeros(1)}
    elif damage == "flat head":
        state["model.decode_head.head.conv_seg.weight"] = torch.zeros(19)
    else:
        state["model.backbone.block1.0.attn.kv.weight"] = torch.zeros(1, 32)
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    for kind in ("auto", "daformer", "hrda", "pycda", "fada", "dise"):
        with pytest.raises(FgdaError, match="x.pth") as caught:
            import_checkpoint(tmp_path / "x.pth", kind)
        assert "\n" not in str(caught.value), str(caught.value)


def test_an_hrda_network_is_traced_with_all_its_windows(tmp_path):
    """ONNX and OpenVINO: tests/trust/exports.py."""
    *_, state = hrda_file(8)
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    content = import_checkpoint(tmp_path / "x.pth", "auto")
    content["preset"]["model"]["detail"] = [64, 64]
    checkpoint.save(tmp_path / "ours.pth", content)
    exported = export(tmp_path / "ours.pth", tmp_path / "x.pt", Form("torchscript"), size=(96, 64))
    assert (
        exported.difference <= 1e-4 * max(1.0, exported.largest) and (tmp_path / "x.pt").is_file()
    )


def test_what_a_training_step_drops_a_teacher_keeps():
    torch.manual_seed(0)
    net = Segmenter(
        5,
        "mit:b0",
        output_stride="native",
        multi_level=False,
        head="daformer",
        head_width=16,
        dropout=0.5,
        drop_path=0.5,
    )
    images = torch.rand(2, 3, 64, 64) * 255

    def spread(model):
        model.train()
        normalisation = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for layer in normalisation:
            layer.eval()
        with torch.no_grad():
            return (model(images).logits - model(images).logits).abs().max()

    assert spread(net) > 1e-4
    teacher = copy.deepcopy(net).without_drops()
    assert spread(teacher) == 0
    assert spread(net) > 1e-4
    assert teacher.state_dict().keys() == net.state_dict().keys()
    net.eval(), teacher.eval()
    with torch.no_grad():
        assert torch.equal(net(images).logits, teacher(images).logits)


@pytest.mark.parametrize(
    "backbone, fits", [("resnet18", False), ("timm:resnet18", True), ("timm:hrnet_w18", False)]
)
def test_blocks_are_skipped_where_an_encoder_can(backbone, fits):
    settings = Model(backbone=backbone, output_stride="native", multi_level=False, drop_path=0.2)
    if fits:
        model = checkpoint.build_model(settings, 5)
        assert any(getattr(module, "drop_prob", 0) for module in model.modules())
    else:
        with pytest.raises(UsageError, match="drop_path"):
            checkpoint.build_model(settings, 5)


@pytest.mark.parametrize(
    "layer, std",
    [
        ("branches.0.0", 0.0884),
        ("branches.1.0.0", 0.0147),
        ("branches.1.1.0", 0.0884),
        ("mix.0", 0.0295),
    ],
)
def test_new_heads_begin_as_published(layer, std):
    """PARITY2, row 25: He normal by fan out (pointwise, depthwise, 3x3), as mmcv's ConvModule."""
    torch.manual_seed(0)
    neck = DaformerNeck((64, 128, 320, 512), 256, (6, 12, 18))
    assert neck.get_submodule(layer).weight.std().item() == pytest.approx(std, rel=0.05)
    assert SegformerNeck((8, 8, 8, 8), 256).mix[0].weight.std().item() == pytest.approx(
        0.0884, rel=0.05
    )


def test_weight_decay_of_the_heads_norms_alone():
    """Row 28: DAFormer's key `head` wins over its key `norm`."""
    model = checkpoint.build_model(
        Model(
            backbone="mit:b0",
            weights="none",
            output_stride="native",
            multi_level=False,
            head="daformer",
            head_width=16,
            align_corners=False,
        ),
        5,
    )
    groups = refine(model.parameter_groups(1e-4, 10), model, Optim(decay_norms="heads"))
    free = {id(p) for group in groups if group.get("weight_decay") == 0.0 for p in group["params"]}
    assert free == {
        id(p) for layer in norms(model.backbone) for p in layer.parameters(recurse=False)
    }
    assert any(id(p) not in free for layer in norms(model.neck) for p in layer.parameters())


@pytest.mark.parametrize(
    "size, image, wanted",
    [
        ((1024, 512), (1920, 1080), (910, 512)),
        ((2048, 1024), (1920, 1080), (1820, 1024)),
        ((1024, 512), (2048, 1024), (1024, 512)),
    ],
)
def test_other_aspects_enter_as_mmsegmentation_resizes(size, image, wanted):
    """Row 35."""
    rule = InputRule(size, None, "linear", within=True)
    assert rule(*image) == wanted and InputRule.from_json(rule.to_json()) == rule
