"""Networks of the mmsegmentation forks of DAFormer, HRDA, MIC, SePiCo, PiPa and DDB, and Refign's,
which keeps their names: a MiT encoder with DAFormer's, SegFormer's or HRDA's head, or DeepLab-V2.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data.geometry import InputRule, Size
from ...runtime.errors import FgdaError
from ..encoders import mit
from ..weights import flat_state, plain_names
from .network import Foreign, blocks, classes_of, renamed

FORMATS = ("daformer", "hrda", "dlv2", "refign")
CONV = r"\.conv\."
NORM = r"\.bn\."
HEADS = {
    "daformer": (
        (r"embed_layers\.(\d)\.proj\.", r"neck.embed.projections.\1."),
        (rf"fuse_layer\.aspp_modules\.0{CONV}", "neck.branches.0.0."),
        (rf"fuse_layer\.aspp_modules\.0{NORM}", "neck.branches.0.1."),
        (rf"fuse_layer\.aspp_modules\.(\d)\.depthwise_conv{CONV}", r"neck.branches.\1.0.0."),
        (rf"fuse_layer\.aspp_modules\.(\d)\.depthwise_conv{NORM}", r"neck.branches.\1.0.1."),
        (rf"fuse_layer\.aspp_modules\.(\d)\.pointwise_conv{CONV}", r"neck.branches.\1.1.0."),
        (rf"fuse_layer\.aspp_modules\.(\d)\.pointwise_conv{NORM}", r"neck.branches.\1.1.1."),
        (rf"fuse_layer\.bottleneck{CONV}", "neck.mix.0."),
        (rf"fuse_layer\.bottleneck{NORM}", "neck.mix.1."),
        (r"conv_seg\.", "head.convs.0."),
    ),
    "segformer": (
        (r"linear_c\.(\d)\.proj\.", r"neck.embed.projections.\1."),
        (rf"linear_fuse{CONV}", "neck.mix.0."),
        (rf"linear_fuse{NORM}", "neck.mix.1."),
        (r"linear_pred\.", "head.convs.0."),
    ),
    "attention": (
        (r"embed_layers\.(\d)\.proj\.", r"attention_neck.embed.projections.\1."),
        (rf"fuse_layer{CONV}", "attention_neck.mix.0."),
        (rf"fuse_layer{NORM}", "attention_neck.mix.1."),
        (r"conv_seg\.", "attention_head.convs.0."),
    ),
}
NEVER_RUN = {"segformer": ("conv_seg.",)}  # of its base class
# ResNetV1c's stem of three convolutions, in timm's names
STEM = {0: "conv1.0", 1: "conv1.1", 3: "conv1.3", 4: "conv1.4", 6: "conv1.6", 7: "bn1"}
# the network by its number of blocks in layer3
RESNETS = {6: "resnet50c", 23: "resnet101c"}
DILATIONS = (6, 12, 18, 24)
# tested on, by default
CITYSCAPES_AT = (1024, 512)
ACDC_AT = (960, 540)
# the encoder by its number of blocks in stage 3
SIZES = {depths[2]: size for size, depths in mit.DEPTHS.items() if size not in ("b0", "b1")}


def recognise(path: Path, content: dict) -> str | None:
    keys = [f".{key}" for key in flat_state(content)]
    if any(".decode_head.scale_attention." in key for key in keys):
        return "hrda"
    if any(".m_head." in key for key in keys) and any(".head.fuse_layer." in key for key in keys):
        return "refign"
    if any(".decode_head.aspp_modules." in key for key in keys):
        return "dlv2"
    return "daformer" if any(".decode_head." in key for key in keys) else None


def read(path: Path, content: dict, kind: str, trust: bool) -> Foreign:
    state = student(plain_names(flat_state(content)))
    if kind == "dlv2":
        return read_dlv2(state, content)
    if kind == "refign":
        state = refigns(state)
    if "backbone.block3.0.attn.q.weight" not in state or not any(
        key.startswith("decode_head.") for key in state
    ):
        raise FgdaError(
            "no MiT encoder with a decode_head: of these files DAFormer's, HRDA's and MIC's with"
            " MiT-B0 to B5 are read"
        )
    weights = {
        f"backbone.{key}": value
        for key, value in mit.adapt_weights(part(state, "backbone."), "mit", "native").items()
    }
    main = part(state, "decode_head.head." if kind == "hrda" else "decode_head.")
    head = "segformer" if any(key.startswith("linear_c.") for key in main) else "daformer"
    weights |= head_of(main, head)
    if kind == "hrda":
        weights |= head_of(part(state, "decode_head.scale_attention."), "attention")
    last = weights.get("head.convs.0.weight")
    if last is None:
        raise FgdaError(f"no {head} head: it has no last convolution")
    keys = {
        "backbone": f"mit:{size_of(state)}",
        "weights": "none",
        "output_stride": "native",
        "multi_level": False,
        "head": head,
        "head_width": last.shape[1],
        "dilations": [6, 12, 18],
        "align_corners": False,
    }
    notes = []
    size = ACDC_AT if kind == "refign" else CITYSCAPES_AT
    if kind == "hrda":
        keys = keys | {"detail": [512, 512]}
        size = (2048, 1024)
        notes = [
            "its authors slide windows: evaluate and predict with --sliding 1024x1024 --overlap 0.5"
            " --blend mean"
        ]
    return _foreign(kind, weights, keys, content, notes=notes, size=size)


def _foreign(
    kind: str,
    weights: dict[str, Tensor],
    keys: dict[str, Any],
    content: dict,
    notes: list[str],
    size: Size,
) -> Foreign:
    """Return the network; iteration and test size are what the file itself says, where it does."""
    meta = content["meta"] if isinstance(content.get("meta"), dict) else {}
    iteration = meta.get("iter")
    size = tested_at(meta.get("config")) or size
    return Foreign(
        kind,
        weights,
        keys,
        classes=classes_of(weights, "head.convs.0.bias"),
        iteration=iteration if isinstance(iteration, int) else None,
        notes=notes,
        rule=InputRule(size, None, "linear", within=True),
    )


def read_dlv2(state: dict[str, Tensor], content: dict) -> Foreign:
    """Read a ResNetV1c with mmsegmentation's DLV2Head: dilations 6 and 12, or all four.

    Contrast heads and projectors, which inference does not run, are left out.
    """
    body = part(state, "backbone.")
    depth = blocks(body, "layer3.")
    if depth not in RESNETS or "stem.0.weight" not in body:
        raise FgdaError(
            f"no ResNetV1c below the DeepLab-V2 head: {depth} blocks in layer3, 6 and 23 are known"
        )
    weights = {}
    for key, value in body.items():
        first, number, rest = (*key.split(".", 2), "", "")[:3]
        name = f"{STEM[int(number)]}.{rest}" if first == "stem" else key
        weights[f"backbone.net.{name}"] = value
    for key, value in part(state, "decode_head.aspp_modules.").items():
        branch, _, rest = key.partition(".conv.")
        weights[f"head.convs.{branch}.{rest}"] = value
    branches = sum(key.startswith("head.convs.") and key.endswith(".bias") for key in weights)
    keys = {
        "backbone": f"timm:{RESNETS[depth]}",
        "weights": "none",
        "output_stride": 8,
        "multi_level": False,
        "head": "aspp",
        "dilations": list(DILATIONS[:branches]),
        "align_corners": False,
    }
    return _foreign("dlv2", weights, keys, content, notes=[], size=CITYSCAPES_AT)


def refigns(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the student of a Refign file in mmsegmentation's names; its teacher (`m_`) and the
    alignment network are left out. Raises FgdaError for its HRDA network.
    """
    if any(key.startswith("hrda_scale_attention.") for key in state):
        raise FgdaError(
            "a Refign network of two resolutions: its windows of 540 pixels fit none of ours; the"
            " DAFormer ones are read"
        )
    renamed_state = {
        f"decode_head.{key.removeprefix('head.')}": value
        for key, value in state.items()
        if key.startswith("head.")
    }
    return renamed_state | {
        key: value for key, value in state.items() if key.startswith("backbone.")
    }


def tested_at(config: object) -> Size | None:
    """Return the size at which the file's own configuration (mmsegmentation's Python text) tests;
    None where it says none, or several.
    """
    tests = (
        re.findall(r"MultiScaleFlipAug['\"],\s*img_scale=\((\d+),\s*(\d+)\)", config)
        if isinstance(config, str)
        else ()
    )
    sizes = {(int(width), int(height)) for width, height in tests}
    return sizes.pop() if len(sizes) == 1 else None


def student(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the network that its authors test; teacher and ImageNet twin lie beside it in files of
    a whole run.
    """
    return part(state, "model.") or state


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


def size_of(state: dict[str, Tensor]) -> str:
    depth = blocks(state, "backbone.block3.")
    small = state["backbone.patch_embed1.proj.weight"].shape[0] == 32
    size = ("b0" if small else "b1") if depth == 2 else SIZES.get(depth)
    if size is None:
        raise FgdaError(f"an encoder with {depth} blocks in stage 3: MiT-B0 to B5 are known")
    return size


def head_of(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    weights = {}
    for key, value in state.items():
        if key.startswith(NEVER_RUN.get(kind, ())):
            continue
        # the loader will report this key as unexpected
        name = renamed(key, HEADS[kind]) or f"decode_head.{key}"
        is_linear = ".projections." in name and value.ndim == 2
        weights[name] = value[:, :, None, None] if is_linear else value
    return weights
