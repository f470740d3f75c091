"""Published checkpoint formats, built key by key, against plain functional implementations of their
networks.
"""

from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
import torchvision

from fgda_cli.data.geometry import InputRule
from fgda_cli.models import checkpoint
from fgda_cli.runtime.errors import FgdaError
from fgda_cli.studies.zoo import import_checkpoint
from tests.helpers import IMAGENET, close, fgda, random_state

DEPTHS = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}


def conv_norm(s, x, conv, bn, **kwargs):
    x = F.conv2d(x, s[f"{conv}.weight"], **kwargs)
    return F.batch_norm(
        x, s[f"{bn}.running_mean"], s[f"{bn}.running_var"], s[f"{bn}.weight"], s[f"{bn}.bias"]
    )


def bottleneck_caffe(s, x, name, stride, dilation):
    y = F.relu(conv_norm(s, x, f"{name}.conv1", bn=f"{name}.bn1", stride=stride))
    y = F.relu(
        conv_norm(s, y, f"{name}.conv2", bn=f"{name}.bn2", padding=dilation, dilation=dilation)
    )
    y = conv_norm(s, y, f"{name}.conv3", bn=f"{name}.bn3")
    if f"{name}.downsample.0.weight" in s:
        x = conv_norm(s, x, f"{name}.downsample.0", bn=f"{name}.downsample.1", stride=stride)
    return F.relu(x + y)


def aspp(s, x, name, branches=4):
    dilations = (6, 12, 18, 24)[:branches]
    return sum(
        F.conv2d(x, s[f"{name}.{i}.weight"], s[f"{name}.{i}.bias"], padding=d, dilation=d)
        for i, d in enumerate(dilations)
    )


def deeplab_multi(s, images):
    """AdaptSegNet's and ADVENT's network: (auxiliary logits, main logits)."""
    mean = torch.tensor((104.00698793, 116.66876762, 122.67891434)).view(1, 3, 1, 1)
    x = F.relu(conv_norm(s, images.flip(1) - mean, "conv1", bn="bn1", stride=2, padding=3))
    x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    middle = None
    for layer, stride, dilation in (
        ("layer1", 1, 1),
        ("layer2", 2, 1),
        ("layer3", 1, 2),
        ("layer4", 1, 4),
    ):
        for block in range(DEPTHS[layer]):
            x = bottleneck_caffe(
                s, x, f"{layer}.{block}", stride=stride if block == 0 else 1, dilation=dilation
            )
        middle = x if layer == "layer3" else middle
    return aspp(s, middle, "layer5.conv2d_list"), aspp(s, x, "layer6.conv2d_list")


def backbone_shapes():
    return {
        k: v.shape
        for k, v in torchvision.models.resnet50(weights=None).state_dict().items()
        if not k.startswith("fc.")
    }


def heads(name, channels, classes=19):
    return {
        f"{name}.{i}.{part}": shape
        for i in range(4)
        for part, shape in (("weight", (classes, channels, 3, 3)), ("bias", (classes,)))
    }


def multi_shapes(classes=19):
    return (
        backbone_shapes()
        | heads("layer5.conv2d_list", 1024, classes)
        | heads("layer6.conv2d_list", 2048, classes)
    )


@pytest.mark.parametrize("prefix", ["", "Scale.", "module."])
@pytest.mark.parametrize("classes", [19, 16])
def test_deeplab_multi(tmp_path, prefix, classes):
    state = random_state(multi_shapes(classes))
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "x.pth")
    checkpoint.save(tmp_path / "ours.pth", import_checkpoint(tmp_path / "x.pth", "advent"))
    model, info = checkpoint.load_model(tmp_path / "ours.pth")
    images = torch.randint(0, 256, (1, 3, 65, 81), dtype=torch.uint8)
    aux, main = deeplab_multi(state, images.float())
    model.aux_head.train()
    with torch.no_grad():
        torch.testing.assert_close(
            model(images).logits, main, rtol=1e-4, atol=1e-4 * float(main.abs().max())
        )
        *_, layer3, _ = model.backbone(model.normalise(images))
        torch.testing.assert_close(
            model.aux_head(layer3), aux, rtol=1e-4, atol=1e-4 * float(aux.abs().max())
        )
    assert len(info["classes"]) == classes and info["preset"]["model"]["variant"] == "caffe"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_fada(tmp_path, prefix):
    state = random_state(backbone_shapes() | heads("conv2d_list", 2048))
    body = {f"{prefix}backbone.{k}": v for k, v in state.items() if not k.startswith("conv2d_list")}
    head = {f"{prefix}{k}": v for k, v in state.items() if k.startswith("conv2d_list")}
    torch.save(
        {
            "iteration": 40000,
            "feature_extractor": body,
            "classifier": head,
            "model_D": {"D.0.weight": torch.zeros(1)},
        },
        tmp_path / "x.pth",
    )
    done = fgda("import", tmp_path / "x.pth", "--out", tmp_path / "ours.pth")
    assert done.returncode == 0 and "fada, resnet50, 19 classes" in done.stdout, done.stderr
    model, info = checkpoint.load_model(tmp_path / "ours.pth")
    reference = torchvision.models.resnet50(
        weights=None, replace_stride_with_dilation=[False, True, True]
    ).eval()
    reference.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith("conv2d_list")}, strict=False
    )
    images = torch.randint(0, 256, (1, 3, 65, 81), dtype=torch.uint8)
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.no_grad():
        x = reference.maxpool(
            reference.relu(reference.bn1(reference.conv1((images / 255 - mean) / std)))
        )
        x = reference.layer4(reference.layer3(reference.layer2(reference.layer1(x))))
        expected = aspp(state, x, "conv2d_list")
        torch.testing.assert_close(
            model(images).logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
        )
    assert info["iteration"] == 40000 and info["method"] == "fada"


@pytest.mark.parametrize("damage", ["missing", "misshapen", "foreign"])
def test_files_that_do_not_fit_are_one_line(tmp_path, damage):
    state = random_state(multi_shapes())
    if damage == "missing":
        del state["layer3.2.conv2.weight"]
    elif damage == "misshapen":
        state["layer1.0.conv1.weight"] = torch.zeros(1, 1, 1, 1)
    else:
        state = {"weight": torch.zeros(2)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(FgdaError, match="x.pth") as caught:
        import_checkpoint(tmp_path / "x.pth", "advent")
    assert "\n" not in str(caught.value)


def forward(path, images):
    model, _ = checkpoint.load_model(path)
    with torch.no_grad():
        return model(images).logits


IMAGES = torch.randint(
    0, 256, (1, 3, 65, 81), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)


@pytest.mark.parametrize("counted", [True, False])
def test_fadas_frozen_norm_adds_no_eps(tmp_path, counted):
    """Parity 1: small variances show it. A file of plain batch norm has counters, and keeps eps."""
    state = random_state(backbone_shapes() | heads("conv2d_list", 2048))
    for key in state:
        if key.endswith("running_var"):
            state[key] = state[key] * 1e-4
        if key.endswith(("bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight")):
            state[key] = state[key].abs() * 1e-2
    body = {f"backbone.{k}": v for k, v in state.items() if not k.startswith("conv2d_list")}
    if not counted:
        body = {k: v for k, v in body.items() if not k.endswith("num_batches_tracked")}
    torch.save(
        {"feature_extractor": body, "classifier": {k: state[k] for k in state if "conv2d" in k}},
        tmp_path / "x.pth",
    )
    done = fgda("import", tmp_path / "x.pth", "--out", tmp_path / "ours.pth")
    assert done.returncode == 0 and ("eps is 0" in done.stderr) == (not counted), done.stderr
    reference = torchvision.models.resnet50(
        weights=None, replace_stride_with_dilation=[False, True, True]
    ).eval()
    reference.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith("conv2d_list")}, strict=False
    )
    expected = {}
    for eps in (0.0, 1e-5):
        for layer in reference.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eps = eps
        mean, std = (
            torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        with torch.no_grad():
            x = reference.maxpool(
                reference.relu(reference.bn1(reference.conv1((IMAGES / 255 - mean) / std)))
            )
            x = reference.layer4(reference.layer3(reference.layer2(reference.layer1(x))))
            expected[eps] = aspp(state, x, "conv2d_list")
    close(forward(tmp_path / "ours.pth", IMAGES), expected[1e-5 if counted else 0.0])
    apart = (expected[0.0] - expected[1e-5]).abs().max() / expected[0.0].abs().max()
    assert apart > 0.01, "eps would not show"


def test_adaptsegnets_untrained_branches_are_left_out(tmp_path):
    """Parity 2."""
    state = random_state(multi_shapes())
    torch.save(state, tmp_path / "x.pth")
    done = fgda(
        "import", tmp_path / "x.pth", "--format", "adaptsegnet", "--out", tmp_path / "ours.pth"
    )
    assert done.returncode == 0 and "dilations 6 and 12 were ever computed" in done.stderr
    for branch in (2, 3):
        for part in ("weight", "bias"):
            for head in ("layer5", "layer6"):
                state[f"{head}.conv2d_list.{branch}.{part}"] = torch.zeros_like(
                    state[f"{head}.conv2d_list.{branch}.{part}"]
                )
    close(forward(tmp_path / "ours.pth", IMAGES), deeplab_multi(state, IMAGES.float())[1])


def test_auto_asks_where_keys_cannot_tell(tmp_path):
    torch.save(random_state(multi_shapes()), tmp_path / "x.pth")
    done = fgda("import", tmp_path / "x.pth", "--out", tmp_path / "ours.pth")
    assert done.returncode == 2 and "ADVENT and AdaptSegNet files have the same keys" in done.stderr
    assert (
        "--format advent, or --format adaptsegnet" in done.stderr
        and not (tmp_path / "ours.pth").exists()
    )


@pytest.mark.parametrize("wrapped", [False, True])
def test_clan_is_the_sum_of_its_heads(tmp_path, wrapped):
    """Parity 3: two heads on layer4."""
    state = random_state(
        backbone_shapes() | heads("layer5.conv2d_list", 2048) | heads("layer6.conv2d_list", 2048)
    )
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "x.pth")
    done = fgda("import", tmp_path / "x.pth", "--out", tmp_path / "ours.pth")
    assert done.returncode == 0 and "clan, resnet50, 19 classes" in done.stdout, done.stderr
    middle = {k.replace("layer5", "unused"): v for k, v in state.items()}
    both = {
        k: v + state[k.replace("layer6", "layer5")] if k.startswith("layer6") else v
        for k, v in middle.items()
    }
    # any auxiliary head, so that the two-level reference runs
    x = both | random_state(heads("layer5.conv2d_list", 1024))
    close(forward(tmp_path / "ours.pth", IMAGES), deeplab_multi(x, IMAGES.float())[1])


def test_a_global_that_is_refused_is_named_and_may_be_trusted(tmp_path):
    """Case 16."""
    import numpy as np

    state = random_state(multi_shapes())
    torch.save({"state_dict": state, "best": np.float64(1)}, tmp_path / "x.pth")
    arguments = ("import", tmp_path / "x.pth", "--format", "advent", "--out", tmp_path / "ours.pth")
    done = fgda(*arguments)
    assert done.returncode == 1 and "numpy" in done.stderr and "--trust" in done.stderr, done.stderr
    assert "damaged" not in done.stderr and len(done.stderr.strip().splitlines()) <= 2
    done = fgda(*arguments, "--trust")
    assert done.returncode == 0, done.stderr
    close(forward(tmp_path / "ours.pth", IMAGES), deeplab_multi(state, IMAGES.float())[1])


def test_damaged_files_are_still_called_damaged(tmp_path):
    torch.save(random_state(multi_shapes()), tmp_path / "x.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:5000])
    done = fgda("import", tmp_path / "cut.pth", "--out", tmp_path / "ours.pth")
    assert (
        done.returncode == 1
        and "damaged, or not made by torch.save" in done.stderr
        and "--trust" not in done.stderr
    )


def deeplab_single(state, images, branches):
    """FDA's (four branches) and DACS's network: layer5 is the head on layer4."""
    named = {k.replace("layer5", "layer6"): v for k, v in state.items()}
    for branch in range(branches, 4):
        for part in ("weight", "bias"):
            key = f"layer6.conv2d_list.{branch}.{part}"
            named[key] = torch.zeros_like(named[key])
    return deeplab_multi(named | random_state(heads("layer5.conv2d_list", 1024)), images)[1]


@pytest.mark.parametrize("kind, branches", [("fda", 4), ("dacs", 2)])
def test_networks_of_one_level(tmp_path, kind, branches):
    state = random_state(backbone_shapes() | heads("layer5.conv2d_list", 2048))
    whole = {f"module.{k}": v for k, v in state.items()}
    content = {
        "iteration": 250000,
        "optimizer": {},
        "config": {"dataset": "cityscapes"},
        "model": whole,
    }
    torch.save(content if kind == "dacs" else whole, tmp_path / "x.pth")
    arguments = ("import", tmp_path / "x.pth", "--out", tmp_path / "ours.pth")
    if kind == "fda":
        asked = fgda(*arguments)
        assert asked.returncode == 2 and "--format fda (BDL too), crst" in asked.stderr
        arguments = (*arguments, "--format", "fda")
    done = fgda(*arguments)
    assert done.returncode == 0 and f"{kind}, resnet50, 19 classes" in done.stdout, done.stderr
    assert ("dilations 6 and 12 were ever computed" in done.stderr) == (kind == "dacs")
    close(forward(tmp_path / "ours.pth", IMAGES), deeplab_single(state, IMAGES.float(), branches))


CAFFE_MEAN = torch.tensor((104.00698793, 116.66876762, 122.67891434)).view(1, 3, 1, 1)


def test_crst_takes_rgb_at_full_size(tmp_path):
    state = random_state(backbone_shapes() | heads("layer5.conv2d_list", 2048))
    torch.save(state, tmp_path / "x.pth")
    done = fgda("import", tmp_path / "x.pth", "--format", "crst", "--out", tmp_path / "ours.pth")
    assert (
        done.returncode == 0
        and "crst, resnet50, 19 classes" in done.stdout
        and "RGB" in done.stderr
    ), done.stderr
    mean, std = IMAGENET
    # the reference turns to BGR and takes the mean off
    taken_off = ((IMAGES / 255 - mean) / std + CAFFE_MEAN).flip(1)
    close(forward(tmp_path / "ours.pth", IMAGES), deeplab_single(state, taken_off, 4))
    assert checkpoint.load_model(tmp_path / "ours.pth")[1]["input"].size == (2048, 1024)


def test_a_sac_file_is_its_students_network(tmp_path):
    """CRST's function below a prefix; the momentum network lies beside it."""
    state = random_state(backbone_shapes() | heads("layer5.conv2d_list", 2048))
    content = {f"module.backbone.model.{key}": value for key, value in state.items()}
    content |= {f"module.slow_net.model.{key}": 0 * value for key, value in state.items()}
    content["module.running_conf"] = torch.zeros(19)
    torch.save({"model": content, "epoch": 136}, tmp_path / "x.pth")
    done = fgda("import", tmp_path / "x.pth", "--out", tmp_path / "ours.pth")
    assert done.returncode == 0 and "sac, resnet50, 19 classes" in done.stdout, done.stderr
    mean, std = IMAGENET
    taken_off = ((IMAGES / 255 - mean) / std + CAFFE_MEAN).flip(1)
    close(forward(tmp_path / "ours.pth", IMAGES), deeplab_single(state, taken_off, 4))
    assert checkpoint.load_model(tmp_path / "ours.pth")[1]["input"].size == (2048, 1024)


def test_adaptsegnets_single_level_file(tmp_path):
    """Its layer5 is the head on layer4."""
    state = random_state(backbone_shapes() | heads("layer5.conv2d_list", 2048))
    torch.save(state, tmp_path / "x.pth")
    arguments = ("import", tmp_path / "x.pth", "--out", tmp_path / "ours.pth")
    asked = fgda(*arguments)
    assert asked.returncode == 2 and "AdaptSegNet's single-level" in asked.stderr, asked.stderr
    done = fgda(*arguments, "--format", "adaptsegnet")
    assert done.returncode == 0 and "adaptsegnet, resnet50, 19 classes" in done.stdout, done.stderr
    close(forward(tmp_path / "ours.pth", IMAGES), deeplab_single(state, IMAGES.float(), 2))


@pytest.mark.parametrize("kind, size", [("fda", (1344, 576)), ("dacs", (1024, 512))])
def test_an_imported_file_enters_as_its_authors_test_it(tmp_path, kind, size):
    torch.save(random_state(backbone_shapes() | heads("layer5.conv2d_list", 2048)), tmp_path / "x")
    rule = InputRule.from_json(import_checkpoint(tmp_path / "x", kind)["input"])
    assert rule(2048, 1024) == size
    # a photograph of another aspect keeps it
    width, height = rule(640, 480)
    assert width / height == pytest.approx(4 / 3, rel=0.02)


@pytest.mark.parametrize("branches", [4, 2])
def test_deeplab_of_mmsegmentation(tmp_path, branches):
    """SePiCo's and DDB's: a ResNetV1c, four dilations or two, and the size that the file names."""
    shapes, _ = pycda_shapes(stem=(32, 32, 64))
    encoder = random_state({key: shape for key, shape in shapes.items() if "_tmp_" not in key})
    head = {
        key: value
        for key, value in random_state(heads("aspp", 2048)).items()
        if int(key.split(".")[1]) < branches
    }
    stem = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}
    theirs = {}
    for key, value in encoder.items():
        first, _, rest = key.partition(".")
        name = f"stem.{stem[first]}.{rest}" if first in stem else key
        theirs[f"model.backbone.{name}"] = value
    for key, value in head.items():
        _, branch, part = key.split(".")
        theirs[f"model.decode_head.aspp_modules.{branch}.conv.{part}"] = value
    theirs["model.auxiliary_head.convs.0.weight"] = torch.zeros(1)
    theirs |= {key.replace("model.", "ema_model.", 1): 0 * value for key, value in theirs.items()}
    config = "dict(type='MultiScaleFlipAug', img_scale=(1280, 640), flip=False)"
    content = {"meta": {"iter": 40000, "config": config}, "state_dict": theirs}
    torch.save(content, tmp_path / "x.pth")
    done = fgda("import", tmp_path / "x.pth", "--out", tmp_path / "ours.pth")
    assert done.returncode == 0 and "dlv2, timm:resnet50" in done.stdout, done.stderr
    expected = aspp(head, deep_stem_stages(encoder, IMAGES.float())["layer4"], "aspp", branches)
    close(forward(tmp_path / "ours.pth", IMAGES), expected)
    assert checkpoint.load_model(tmp_path / "ours.pth")[1]["input"].size == (1280, 640)


def test_dise_is_its_encoder(tmp_path):
    """Parameters of a sequence for a stem, two heads of which two branches run, images divided by
    128.
    """
    state = random_state(multi_shapes())
    names = {"conv1.": "layer0.0.", "bn1.": "layer0.1.", "layer5.": "final1.", "layer6.": "final2."}
    theirs = {}
    for key, value in state.items():
        stem = next((part for part in names if key.startswith(part)), None)
        theirs[key if stem is None else names[stem] + key.removeprefix(stem)] = value
    torch.save(theirs, tmp_path / "enc_shared.pth")
    done = fgda("import", tmp_path / "enc_shared.pth", "--out", tmp_path / "ours.pth")
    assert done.returncode == 0 and "dise, resnet50, 19 classes" in done.stdout, done.stderr
    two = {
        k: torch.zeros_like(v) if k.split(".")[-2] in "23" and "conv2d_list" in k else v
        for k, v in state.items()
    }
    scaled = (IMAGES.float().flip(1) - CAFFE_MEAN) / 128 + CAFFE_MEAN
    close(forward(tmp_path / "ours.pth", IMAGES), deeplab_multi(two, scaled.flip(1))[1])


def pycda_shapes(stem=(64, 64, 128)):
    """Encoder and decoder of a ResNet-50 with a stem of three convolutions."""
    encoder = {k: v for k, v in backbone_shapes().items() if not k.startswith(("conv1.", "bn1."))}
    encoder["layer1.0.conv1.weight"] = (64, stem[-1], 1, 1)
    encoder["layer1.0.downsample.0.weight"] = (256, stem[-1], 1, 1)
    decoder = {}

    def norm(shapes, name, channels):
        for part in ("weight", "bias", "running_mean", "running_var", "_tmp_running_mean"):
            shapes[f"{name}.{part}"] = (channels,)

    for number, (inputs, outputs) in enumerate(zip((3, *stem[:-1]), stem, strict=True), 1):
        encoder[f"conv{number}.weight"] = (outputs, inputs, 3, 3)
        norm(encoder, f"bn{number}", outputs)
    for level in range(4):
        decoder[f"ppm.{level}.1.weight"] = (512, 2048, 1, 1)
        norm(decoder, f"ppm.{level}.2", 512)
    decoder["conv_last.0.weight"] = (512, 4096, 3, 3)
    decoder["cbr_deepsup.0.weight"] = (512, 1024, 3, 3)
    norm(decoder, "conv_last.1", 512)
    norm(decoder, "cbr_deepsup.1", 512)
    for name in ("conv_last.4", "conv_last_deepsup"):
        decoder |= {f"{name}.weight": (19, 512, 1, 1), f"{name}.bias": (19,)}
    return encoder, decoder


def deep_stem_stages(encoder, images):
    """The features of a ResNet whose stem is three convolutions, by layer, at stride 8."""
    mean, std = IMAGENET
    x = (images / 255 - mean) / std
    for number in (1, 2, 3):
        x = F.relu(
            conv_norm(
                encoder,
                x,
                f"conv{number}",
                bn=f"bn{number}",
                stride=2 if number == 1 else 1,
                padding=1,
            )
        )
    x = F.max_pool2d(x, 3, 2, 1)
    stages = {}
    for layer, stride, dilations in (
        ("layer1", 1, (1, 1)),
        ("layer2", 2, (1, 1)),
        ("layer3", 1, (1, 2)),
        ("layer4", 1, (2, 4)),
    ):
        for block in range(DEPTHS[layer]):
            name = f"{layer}.{block}"
            first = block == 0
            dilation = dilations[not first]
            step = stride if first else 1
            y = F.relu(conv_norm(encoder, x, f"{name}.conv1", bn=f"{name}.bn1"))
            y = F.relu(
                conv_norm(
                    encoder,
                    y,
                    f"{name}.conv2",
                    bn=f"{name}.bn2",
                    stride=step,
                    padding=dilation,
                    dilation=dilation,
                )
            )
            y = conv_norm(encoder, y, f"{name}.conv3", bn=f"{name}.bn3")
            if first:
                x = conv_norm(
                    encoder, x, f"{name}.downsample.0", bn=f"{name}.downsample.1", stride=step
                )
            x = F.relu(x + y)
        stages[layer] = x
    return stages


def pycda(encoder, decoder, images):
    """Their forward: (auxiliary logits, main logits) at stride 8."""
    stages = deep_stem_stages(encoder, images)
    x = stages["layer4"]
    pooled = [x]
    for level, cells in enumerate((1, 2, 3, 6)):
        y = F.relu(
            conv_norm(
                decoder, F.adaptive_avg_pool2d(x, cells), f"ppm.{level}.1", bn=f"ppm.{level}.2"
            )
        )
        pooled.append(F.interpolate(y, x.shape[-2:], mode="bilinear", align_corners=False))
    main = F.relu(
        conv_norm(decoder, torch.cat(pooled, 1), "conv_last.0", bn="conv_last.1", padding=1)
    )
    aux = F.relu(
        conv_norm(decoder, stages["layer3"], "cbr_deepsup.0", bn="cbr_deepsup.1", padding=1)
    )
    return tuple(
        F.conv2d(y, decoder[f"{name}.weight"], decoder[f"{name}.bias"])
        for y, name in ((aux, "conv_last_deepsup"), (main, "conv_last.4"))
    )


def test_pycda_is_two_files(tmp_path):
    encoder, decoder = (random_state(shapes) for shapes in pycda_shapes())
    torch.save(encoder, tmp_path / "encoder_best.pth.tar")
    alone = fgda("import", tmp_path / "encoder_best.pth.tar", "--out", tmp_path / "ours.pth")
    assert (
        alone.returncode == 1
        and "encoder and decoder in two files" in alone.stderr
        and not (tmp_path / "ours.pth").exists()
    )
    torch.save(decoder, tmp_path / "decoder_best.pth.tar")
    for name in ("encoder", "decoder"):
        done = fgda("import", tmp_path / f"{name}_best.pth.tar", "--out", tmp_path / "ours.pth")
        assert done.returncode == 0 and "pycda, timm:resnet50s, 19 classes" in done.stdout, (
            done.stderr
        )
    model, info = checkpoint.load_model(tmp_path / "ours.pth")
    aux, main = pycda(encoder, decoder, IMAGES.float())
    with torch.no_grad():
        found = model(IMAGES)
        close(found.logits, main)
        close(model.aux_head.eval()(found.aux_features), aux)
    assert info["input"].resample == "bilinear" and not model.align_corners
    # enlarged border on border, as its authors do
    from fgda_cli.inference.predict import predict

    image = IMAGES[0].permute(1, 2, 0).numpy()
    model.input_rule = None
    labels = (
        F.interpolate(main, IMAGES.shape[-2:], mode="bilinear", align_corners=False)
        .argmax(1)[0]
        .numpy()
    )
    assert (predict(model, image)["train_ids"] == labels).mean() > 0.999


def test_the_command_knows_every_format_that_is_read():
    from fgda_cli.commands.import_ import Format
    from fgda_cli.models.foreign import READERS

    assert set(get_args(Format)) == {
        "auto",
        *(kind for reader in READERS for kind in reader.FORMATS),
    }
